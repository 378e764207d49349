"""What users pass by mistake, and what they are told."""

import numpy as np
import pytest

from ragpair import ConfigurationError, EndpointRejected, EndpointUnreachable, InputTooLong, InvalidInput
from ragpair.testing.model import embed, logit, sigmoid

LONG = "word " * 600
RERANK = {"vllm": "rerank", "sglang": "rerank", "ollama": "answers", "llamacpp": "rerank"}

NOT_TEXTS = [
    pytest.param("", id="empty"),
    pytest.param(" \n\t\u3000", id="blank"),
    pytest.param(None, id="None"),
    pytest.param(7, id="int"),
    pytest.param(b"bytes", id="bytes"),
    pytest.param(["nested"], id="list"),
    pytest.param([1, 2, 3], id="token ids"),
    pytest.param("bad \ud83d surrogate", id="surrogate"),
]


@pytest.mark.parametrize("method", ["embed_queries", "embed_documents"])
def test_nothing_to_embed_is_no_request(serve, embedder, call, method):
    server = serve("vllm")
    vectors = call(embedder(server), method, [])
    assert (vectors.shape, vectors.dtype) == ((0, 0), np.float32)
    assert server.requests == []


@pytest.mark.parametrize("text", NOT_TEXTS)
@pytest.mark.parametrize("method", ["embed_queries", "embed_documents"])
def test_what_is_no_text_is_refused_by_its_index_before_anything_is_sent(serve, embedder, call, method, text):
    server = serve("vllm")
    with pytest.raises(InvalidInput, match=r"(query|document) 1 ") as caught:
        call(embedder(server), method, ["fine", text, "fine"])
    assert caught.value.index == 1
    assert server.requests == []


@pytest.mark.parametrize("text", NOT_TEXTS)
def test_documents_to_rerank_are_checked_too_but_may_be_blank(serve, reranker, call, text):
    server = serve("vllm", task="rerank")
    if isinstance(text, str) and not text.strip():
        assert call(reranker(server), "score", "q", ["q", text])[1] == 0.0
        return
    with pytest.raises(InvalidInput, match="document 1 ") as caught:
        call(reranker(server), "score", "q", ["fine", text, "fine"])
    assert caught.value.index == 1
    assert server.requests == []


@pytest.mark.parametrize("text", NOT_TEXTS)
def test_the_query_is_checked_too(serve, reranker, call, text):
    server = serve("vllm", task="rerank")
    with pytest.raises(InvalidInput, match="the query") as caught:
        call(reranker(server), "rank", text, ["d"])
    assert caught.value.index is None
    assert server.requests == []


@pytest.mark.parametrize("texts", ["one string", b"bytes"])
def test_one_string_is_not_a_list_of_letters(serve, embedder, reranker, call, texts):
    server = serve("vllm")
    with pytest.raises(InvalidInput, match="list"):
        call(embedder(server), "embed_documents", texts)
    with pytest.raises(InvalidInput, match="list"):
        call(reranker(server), "score", "q", texts)
    assert server.requests == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, "not None"),
        (7, "not one int"),
        ({"id1": "a text"}, r"not one dict. list\(d.values\(\)\)"),
        ({"a text"}, "not one set"),
        (frozenset(["a text"]), "not one frozenset"),
    ],
    ids=["None", "int", "dict", "set", "frozenset"],
)
def test_what_is_no_list_is_refused(serve, embedder, reranker, call, texts, message):
    server = serve("vllm")
    with pytest.raises(InvalidInput, match=f"a list of queries, {message}"):
        call(embedder(server), "embed_queries", texts)
    with pytest.raises(InvalidInput, match=f"a list of documents, {message}"):
        call(embedder(server), "embed_documents", texts)
    with pytest.raises(InvalidInput, match=f"a list of documents, {message}"):
        call(reranker(server), "score", "q", texts)
    assert server.requests == []


@pytest.mark.parametrize(
    "make",
    [
        tuple,
        iter,
        lambda texts: (text for text in texts),
        np.array,
        lambda texts: dict.fromkeys(texts).keys(),
    ],
    ids=["tuple", "iterator", "generator", "numpy", "keys"],
)
def test_any_collection_of_strings_will_do(serve, embedder, reranker, call, make):
    texts = ["where", "is", "it"]
    np.testing.assert_allclose(
        call(embedder(serve("vllm")), "embed_documents", make(texts)), [embed(text, 64) for text in texts], atol=1e-6
    )
    scores = call(reranker(serve("vllm", task="rerank")), "score", "is", make(texts))
    np.testing.assert_allclose(scores, [sigmoid(logit("is", text)) for text in texts], atol=1e-6)


def test_a_megabyte_of_text_is_too_long_and_says_so(serve, embedder, reranker, call, engine):
    text = "wörter 中 " * 100_000
    with pytest.raises(InputTooLong) as caught:
        call(embedder(serve(engine)), "embed_documents", ["ok", text])
    assert caught.value.index == 1
    assert len(str(caught.value)) < 1000
    with pytest.raises(InputTooLong) as caught:
        call(reranker(serve(engine, task=RERANK[engine])), "score", "q", ["ok", text])
    assert caught.value.index == 1


def test_a_megabyte_of_text_fits_if_the_model_takes_it(serve, embedder, call, engine):
    server = serve(engine, max_tokens=10**6)
    text = "wörter 中 " * 100_000
    assert call(embedder(server), "embed_documents", [text]).shape == (1, 64)
    assert server.texts == [text]


def test_ten_thousand_texts(serve, embedder, call):
    server = serve("vllm")
    texts = [f"text number {n}" for n in range(10_000)]
    vectors = call(embedder(server), "embed_documents", texts)
    for n in (0, 127, 128, 5_000, 9_999):
        np.testing.assert_allclose(vectors[n], embed(texts[n], 64), atol=1e-6)
    assert len(server.work) < 40


@pytest.mark.parametrize("position", [0, 7, 15])
def test_a_text_that_is_too_long_is_named(serve, embedder, call, engine, position):
    server = serve(engine)
    texts = [f"t{n}" for n in range(16)]
    texts[position] = LONG
    with pytest.raises(InputTooLong, match=rf"text {position} .*512|511.*too_long='truncate'") as caught:
        call(embedder(server), "embed_documents", texts)
    assert caught.value.index == position
    assert caught.value.limit == (511 if engine == "sglang" else 512)
    assert caught.value.endpoint == server.url


def test_truncating_keeps_the_others(serve, embedder, call, engine):
    texts = ["t0", "t1", LONG, "t3"]
    vectors = call(embedder(serve(engine), too_long="truncate"), "embed_documents", texts)
    for n in (0, 1, 3):
        np.testing.assert_allclose(vectors[n], embed(texts[n], 64), atol=1e-6)
    assert np.linalg.norm(vectors[2]) == pytest.approx(1, abs=1e-5)


def test_truncating_a_query_keeps_its_instruction(serve, embedder, call, engine):
    server = serve(engine)
    call(embedder(server, too_long="truncate"), "embed_queries", [LONG])
    assert all(text.startswith("Instruct: Given a web search query") for text in server.texts)


def test_a_document_that_is_too_long_to_rerank(serve, reranker, call, engine):
    server = serve(engine, task=RERANK[engine])
    documents = ["d0", "word d1", LONG, "d3"]
    with pytest.raises(InputTooLong, match="document 2 ") as caught:
        call(reranker(server), "score", "word", documents)
    assert caught.value.index == 2
    scores = call(reranker(server, too_long="truncate"), "score", "word", documents)
    np.testing.assert_allclose(scores, [sigmoid(x) for x in (-4, 4, 4, -4)], atol=1e-6)


def test_a_query_without_room_for_documents(serve, reranker, call, engine):
    server = serve(engine, task=RERANK[engine])
    for too_long in ("error", "truncate"):
        with pytest.raises(InputTooLong):
            call(reranker(server, too_long=too_long), "score", LONG, ["d"])


def test_text_is_sent_as_it_is(serve, embedder, call, engine):
    server = serve(engine)
    texts = [
        'quote " \\ back',
        "line\r\nbreak\u2028",
        "\x00nul",
        "e\u0301 \U0001f600 \ufeff",
        " space ",
        "</s><|im_end|>",
    ]
    call(embedder(server), "embed_documents", texts)
    assert server.texts == texts


# --- options of another type ---


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dimensions", "32"),
        ("dimensions", 32.5),
        ("query_prompt", 5),
        ("document_prompt", ["passage: "]),
        ("model", 5),
        ("family", 5),
        ("instruction", 5),
        ("headers", ["X-Tenant"]),
        ("extra_body", "{}"),
        ("batch_size", "8"),
    ],
)
def test_options_of_another_type_are_named_when_the_object_is_made(embedder, reranker, option, value):
    with pytest.raises(ConfigurationError, match=f"^{option} must be a "):
        embedder("http://127.0.0.1:9", **{option: value})
    if option not in ("dimensions", "query_prompt", "document_prompt"):
        with pytest.raises(ConfigurationError, match=f"^{option} must be a "):
            reranker("http://127.0.0.1:9", **{option: value})


def test_arguments_of_another_type_are_named(serve, embedder, reranker, call):
    for top_n in (2.5, "2", 0):
        with pytest.raises(ConfigurationError, match="top_n must be a whole number from 1"):
            call(reranker("http://127.0.0.1:9"), "rank", "q", ["d"], top_n=top_n)
    with pytest.raises(ConfigurationError, match="instruction must be a string"):
        call(embedder(serve("vllm")), "embed_queries", ["q"], instruction=5)
    with pytest.raises(ConfigurationError, match="instruction must be a string"):
        call(reranker(serve("vllm", task="answers")), "score", "q", ["d"], instruction=5)


def test_whole_numbers_of_numpy_are_whole_numbers(serve, embedder, reranker, call):
    one = embedder(serve("vllm", model="Qwen/Qwen3-Embedding-0.6B"), dimensions=np.int64(32), batch_size=np.int64(1))
    assert call(one, "embed_documents", ["a", "b"]).shape == (2, 32)
    ranking = call(reranker(serve("vllm", task="rerank")), "rank", "q", ["d", "q"], top_n=np.int64(1))
    assert [place.index for place in ranking] == [1]


# --- addresses, names, keys ---


def test_wrong_model_name_lists_what_is_served(serve, embedder, reranker, call, engine):
    server = serve(engine)
    with pytest.raises(ConfigurationError, match=server.model) as caught:
        call(embedder(server, "no-such-model"), "embed_documents", ["a"])
    assert "no-such-model" in str(caught.value)
    with pytest.raises(ConfigurationError, match="no-such-model"):
        call(reranker(server, "no-such-model"), "score", "q", ["d"])


def test_model_names_may_be_short_on_ollama(serve, embedder, call):
    server = serve("ollama", model="bge-m3:latest", dims=1024)
    assert call(embedder(server, "bge-m3"), "embed_documents", ["a"]).shape == (1, 1024)


def test_nobody_listens(embedder, reranker, call, waits):
    for make, method, args in ((embedder, "embed_documents", [["a"]]), (reranker, "score", ["q", ["d"]])):
        with pytest.raises(EndpointUnreachable, match=r"http://127.0.0.1:9.*tried 4 times.*server running") as caught:
            call(make("http://127.0.0.1:9"), method, *args)
        assert caught.value.endpoint == "http://127.0.0.1:9"
    assert len(waits) == 6
    assert sum(waits) < 4


def test_no_such_host(embedder, call, monkeypatch, waits):
    def unknown(*args, **kwargs):
        import socket

        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with pytest.raises(EndpointUnreachable, match="no-such-host"):
        call(embedder("http://no-such-host.invalid:8000"), "embed_documents", ["a"])


@pytest.mark.parametrize(
    ("installed", "name", "cure"),
    [
        ("qwen3-embedding:0.6b", "Qwen/Qwen3-Embedding-0.6B", r"Pass model='qwen3-embedding:0.6b'\.$"),
        ("qwen3-embedding:0.6b", "qwen3-embedding", r"Pass model='qwen3-embedding:0.6b'\.$"),
        ("qwen3-embedding:0.6b", "qwen3-embedding:4b", "Get it with: ollama pull qwen3-embedding:4b$"),
        ("all-minilm:22m", "Qwen/Qwen3-Embedding-0.6B", "Get it with: ollama pull qwen3-embedding:0.6b$"),
        ("all-minilm:22m", "intfloat/e5-base-v2", "ragpair launch intfloat/e5-base-v2 --engine ollama$"),
        ("all-minilm:22m", "no-such", "Get it with: ollama pull no-such$"),
    ],
)
def test_a_name_that_ollama_has_not_is_told_the_one_that_it_has(serve, embedder, installed, name, cure):
    server = serve("ollama", model=installed)
    with pytest.raises(ConfigurationError, match=rf"has no model '{name}'\. It has '{installed}'\. .*{cure}"):
        embedder(server, name).embed_documents(["a"])


@pytest.mark.parametrize("key", [None, "wrong"])
def test_missing_and_wrong_keys(serve, embedder, reranker, call, engine, key):
    server = serve(engine, api_key="right")
    with pytest.raises(EndpointRejected, match="none or another was sent: pass api_key=") as caught:
        call(embedder(server, api_key=key), "embed_documents", ["a"])
    assert caught.value.status == 401
    server = serve(engine, api_key="right", task=RERANK[engine])
    with pytest.raises(EndpointRejected, match="api_key="):
        call(reranker(server, api_key=key), "score", "q", ["d"])


def test_the_right_key(serve, embedder, reranker, call, engine):
    server = serve(engine, api_key="right")
    assert call(embedder(server, api_key="right"), "embed_documents", ["a"]).shape == (1, 64)
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer right"}
    server = serve(engine, api_key="right", task=RERANK[engine])
    assert call(reranker(server, api_key="right"), "score", "q", ["q"])[0] > 0.9


def test_the_wrong_engine_named(serve, embedder, call, engine):
    for other in {"vllm", "sglang", "ollama", "llamacpp"} - {engine}:
        try:
            vectors = call(embedder(serve(engine), engine=other), "embed_documents", ["a"])
        except (ConfigurationError, EndpointRejected):
            continue
        np.testing.assert_allclose(vectors, [embed("a", 64)], atol=1e-6)  # the shapes agree; so do the numbers


def test_surrogates_and_other_nonsense_in_instructions(serve, embedder, reranker):
    for instruction in ("bad \ud83d", "  "):
        with pytest.raises((ConfigurationError, InvalidInput)):
            embedder(serve("vllm"), instruction=instruction).embed_queries(["q"])
        with pytest.raises((ConfigurationError, InvalidInput)):
            reranker(serve("vllm", task="answers"), instruction=instruction).score("q", ["d"])


def test_extra_body_that_is_no_json(serve, embedder):
    with pytest.raises(ConfigurationError, match="extra_body"):
        embedder(serve("vllm"), extra_body={"options": object()}).embed_queries(["q"])


def test_no_room_beside_the_query_names_the_server(serve, reranker):
    server = serve("sglang", task="rerank")
    with pytest.raises(InputTooLong, match=r"510 tokens\. Shorten the query,") as caught:
        reranker(server, too_long="truncate").score(LONG, ["d"])
    assert caught.value.endpoint == server.url
