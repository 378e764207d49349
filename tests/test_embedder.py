"""Embedder against each engine: what is sent, and which vector belongs to which text."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ragpair import ConfigurationError, Embedder, RagpairWarning
from ragpair.testing import Fault
from ragpair.testing.model import embed

ROUTE = {"vllm": "/v1/embeddings", "sglang": "/v1/embeddings", "ollama": "/api/embed", "llamacpp": "/v1/embeddings"}
TASK = "Given a web search query, retrieve relevant passages that answer the query"


def expected(texts):
    return np.array([embed(text, 64) for text in texts])


def shuffle(reply):
    reply["data"].reverse()
    reply["data"].append(reply["data"].pop(0))


def test_vectors_are_in_the_order_of_the_texts(serve, embedder, call, engine):
    server = serve(engine)
    if engine != "ollama":  # whose rows carry no index
        server.fail(Fault.edit(shuffle, times=None))
    texts = [f"text number {n}" for n in range(50)]
    vectors = call(embedder(server, batch_size=7), "embed_documents", texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected(texts), atol=1e-6)


def test_duplicates_are_sent_once(serve, embedder, call, engine):
    server = serve(engine)
    texts = ["a", "b", "a", "c", "b", "a"]
    vectors = call(embedder(server), "embed_documents", texts)
    assert server.texts == ["a", "b", "c"]
    np.testing.assert_allclose(vectors, expected(texts), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 10, 11])
def test_batches_are_no_larger_than_batch_size(serve, embedder, call, engine, batch_size):
    server = serve(engine)
    texts = [f"t{n}" for n in range(10)]
    call(embedder(server, batch_size=batch_size), "embed_documents", texts)
    sizes = sorted(len(request.body["input"]) for request in server.work)
    assert sum(sizes) == 10
    assert max(sizes) == min(batch_size, 10)
    assert len(sizes) == -(-10 // batch_size)
    assert sorted(server.texts) == sorted(texts)


def test_default_batches_suit_the_engine(serve, embedder, engine):
    server = serve(engine)
    embedder(server).embed_documents([f"t{n}" for n in range(2500)])
    sizes = [len(r.body["input"]) for r in server.work]
    if engine in ("vllm", "sglang"):
        assert sizes[0] < 200 < max(sizes) <= 1024  # they grow as answers come
    else:
        assert max(sizes) == {"ollama": 64, "llamacpp": 32}[engine]


def test_long_texts_make_small_batches(serve, embedder):
    server = serve("vllm", max_tokens=10**6)
    embedder(server).embed_documents([f"{n} " + "word " * 30_000 for n in range(5)])
    sizes = [len(r.body["input"]) for r in server.work]
    assert sum(sizes) == 5
    assert max(sizes) <= 2


def test_qwen3_prompts_are_on_the_wire_exactly(serve, embedder, call, engine):
    server = serve(engine)
    one = embedder(server)
    call(one, "embed_queries", ["  where is my parcel?\n"])
    call(one, "embed_documents", ["  a document\n"])
    assert server.texts == [f"Instruct: {TASK}\nQuery:  where is my parcel?\n", "  a document\n"]


def test_instruction_of_the_object_and_of_the_call(serve, embedder, call):
    server = serve("vllm")
    one = embedder(server, instruction="Find answers")
    call(one, "embed_queries", ["q"])
    call(one, "embed_queries", ["q"], instruction="Find {text} questions")
    call(one, "embed_documents", ["d"])
    assert server.texts == ["Instruct: Find answers\nQuery:q", "Instruct: Find {text} questions\nQuery:q", "d"]


def test_e5_prefixes(serve, embedder, call):
    server = serve("vllm", model="intfloat/multilingual-e5-small", dims=384)
    one = embedder(server)
    call(one, "embed_queries", ["q"])
    call(one, "embed_documents", ["d"])
    assert server.texts == ["query: q", "passage: d"]


def test_own_prompts_and_no_prompts(serve, embedder, call):
    server = serve("vllm")
    one = embedder(server, query_prompt="Q: {text}!", document_prompt="D: ")
    call(one, "embed_queries", ["{text}"])
    call(one, "embed_documents", ["{text}"])
    call(embedder(server, family=None), "embed_queries", ["plain"])
    assert server.texts == ["Q: {text}!", "D: {text}", "plain"]


def test_only_strings_and_no_nulls_are_sent(serve, embedder, call, engine):
    server = serve(engine)
    call(embedder(server), "embed_documents", ["a", "b"])
    (request,) = server.work
    assert request.path == ROUTE[engine]
    assert request.body["input"] == ["a", "b"]
    assert request.body["model"] == server.model
    assert None not in request.body.values()
    if engine == "ollama":
        assert request.body == {"model": server.model, "input": ["a", "b"], "truncate": False}
    else:
        assert request.body["encoding_format"] == "base64"


def test_one_text_is_a_list_too(serve, embedder, call, engine):
    server = serve(engine)
    assert call(embedder(server), "embed_queries", ["q"]).shape == (1, 64)
    assert isinstance(server.work[0].body["input"], list)


def test_extra_body_goes_with_each_request(serve, embedder, call):
    server = serve("ollama")
    given = {"options": {"num_ctx": 8192}}
    call(embedder(server, extra_body=given), "embed_documents", ["a"])
    assert server.work[0].body["options"] == {"num_ctx": 8192}
    assert given == {"options": {"num_ctx": 8192}}


def test_extra_headers_go_with_each_request(serve, embedder, call):
    server = serve("vllm")
    call(embedder(server, headers={"X-Team": "search"}), "embed_documents", ["a"])
    assert {request.headers["x-team"] for request in server.requests} == {"search"}


def test_what_was_given_is_not_changed(serve, embedder, call):
    texts = ["b", "a", "b"]
    vectors = call(embedder(serve("vllm")), "embed_documents", texts)
    assert texts == ["b", "a", "b"]
    vectors[0] = 0  # the caller's own, to do with as they like
    assert vectors[2].any()


def test_the_server_is_looked_at_once(serve, embedder, call, engine):
    server = serve(engine)
    one = embedder(server)
    for _ in range(3):
        call(one, "embed_queries", ["q"])
    looked = [request.path for request in server.requests if request not in server.work]
    assert len(server.work) == 3
    assert [request.path for request in server.requests][: len(looked)] == looked


def test_making_one_sends_nothing(serve, embedder, engine):
    server = serve(engine)
    embedder(server)
    assert server.requests == []


@pytest.mark.parametrize("url", ["{url}/", "{url}/v1", "{url}/v1/", "{url}/v1/embeddings"])
def test_addresses_as_people_paste_them(serve, embedder, url):
    server = serve("vllm")
    assert embedder(url.format(url=server.url)).embed_documents(["a"]).shape == (1, 64)


def test_named_engine_is_not_asked_for(serve, embedder, call, engine):
    server = serve(engine)
    call(embedder(server, engine=engine), "embed_documents", ["a"])
    paths = [request.path for request in server.requests]
    assert paths.count("/v1/models") == (0 if engine == "ollama" else 1)


@pytest.mark.parametrize("owner", ["my-gateway", None])
def test_engine_behind_a_gateway_that_rewrites_the_models(serve, embedder, call, owner):
    for engine in ("vllm", "ollama"):
        server = serve(engine)
        server.fail(Fault.edit(lambda reply: reply["data"][0].update(owned_by=owner), path="/v1/models", times=1))
        assert call(embedder(server), "embed_documents", ["a"]).shape == (1, 64)


def test_unknown_engine_says_what_to_do(serve, embedder, call):
    server = serve("llamacpp")
    server.fail(Fault.edit(lambda reply: reply["data"][0].update(owned_by="acme"), path="/v1/models"))
    with pytest.raises(ConfigurationError, match=r"owned by 'acme'.*pass engine="):
        call(embedder(server), "embed_documents", ["a"])


def test_describe_tells_what_was_found(serve, embedder, engine):
    server = serve(engine)
    found = embedder(server).describe()
    assert found["engine"] == engine
    assert found["model"] == server.model
    assert found["family"] == "qwen3-embedding"
    assert found["query_prompt"] == f"Instruct: {TASK}\nQuery:{{text}}"
    assert found["document_prompt"] == "{text}"
    assert found["limit"] == (511 if engine == "sglang" else 512)


def test_unknown_models_are_embedded_with_a_warning_once(serve, embedder, call):
    server = serve("vllm", model="acme/embed-9000")
    one = embedder(server)
    with pytest.warns(RagpairWarning, match=r"acme/embed-9000.*family=") as caught:
        call(one, "embed_queries", ["q"])
    assert len(caught) == 1
    assert Path(caught[0].filename).name == "conftest.py"  # where `call` stands, not a line of ours
    call(one, "embed_queries", ["q"])  # a second warning would be an error here
    assert server.texts == ["q", "q"]


@pytest.mark.parametrize("said", [{"family": None}, {"query_prompt": "Q: "}, {"query_prompt": ""}])
def test_whoever_says_the_prompt_of_an_unknown_model_is_not_warned(serve, embedder, call, said):
    server = serve("vllm", model="acme/embed-9000")
    call(embedder(server, **said), "embed_queries", ["q"])
    assert server.texts == [(said.get("query_prompt") or "") + "q"]


# --- dimensions ---


def test_known_models_are_cut_here_the_same_on_every_engine(serve, embedder, call, engine):
    server = serve(engine)
    vectors = call(embedder(server, dimensions=32), "embed_documents", ["a"])
    full = expected(["a"])[:, :32]
    np.testing.assert_allclose(vectors, full / np.linalg.norm(full), atol=1e-6)
    assert "dimensions" not in server.work[0].body


def test_models_that_cannot_be_cut_say_so(serve, embedder, call):
    server = serve("vllm", model="intfloat/multilingual-e5-small", dims=384)
    with pytest.raises(ConfigurationError, match=r"cannot be cut to 128 numbers\. Leave dimensions out"):
        call(embedder(server, dimensions=128), "embed_documents", ["a"])
    assert server.work == []


def test_widths_that_a_model_may_have_are_named(serve, embedder, call):
    with pytest.raises(ConfigurationError, match=r"cannot be cut to 8 numbers\. They may be cut to 32 and more\.$"):
        call(embedder(serve("vllm"), dimensions=8), "embed_documents", ["a"])


def test_unknown_models_are_cut_by_servers_that_check(serve, embedder, call):
    server = serve("vllm", model="acme/embed-9000")
    vectors = call(embedder(server, dimensions=16, family=None), "embed_queries", ["a"])
    assert vectors.shape == (1, 16)
    assert server.work[0].body["dimensions"] == 16
    with pytest.raises(ConfigurationError, match="does not check"):
        call(embedder(serve("ollama", model="acme"), dimensions=16, family=None), "embed_queries", ["a"])


def test_empty_list_knows_its_width_if_told(serve, embedder, call):
    assert call(embedder(serve("vllm"), dimensions=32), "embed_documents", []).shape == (0, 32)


# --- how many at once ---


def test_concurrency_stays_in_its_limit(serve, embedder, call, engine, together):
    server = serve(engine, latency=0.005)
    limit = 2 if engine == "ollama" else 3
    together(server, limit)
    call(embedder(server, batch_size=1, max_concurrency=3), "embed_documents", [f"t{n}" for n in range(15)])
    assert server.in_flight_peak == limit


def test_default_concurrency(serve, embedder, call, together):
    server = serve("vllm", latency=0.005)
    together(server, 8, after=20)
    call(embedder(server, batch_size=1), "embed_documents", [f"t{n}" for n in range(60)])
    assert server.in_flight_peak == 8


def test_threads_share_the_limit(serve, together):
    server = serve("vllm", latency=0.005)
    together(server, 4)
    with Embedder(server.url, batch_size=1, max_concurrency=4) as one, ThreadPoolExecutor(6) as pool:
        lists = [[f"{k} {n}" for n in range(6)] for k in range(6)]
        for texts, vectors in zip(lists, pool.map(one.embed_documents, lists), strict=True):
            np.testing.assert_allclose(vectors, expected(texts), atol=1e-6)
    assert server.in_flight_peak == 4


async def test_tasks_share_the_limit(serve, together):
    server = serve("vllm", latency=0.005)
    together(server, 4)
    lists = [[f"{k} {n}" for n in range(6)] for k in range(6)]
    async with Embedder(server.url, batch_size=1, max_concurrency=4) as one:
        for texts, vectors in zip(
            lists, await asyncio.gather(*[one.aembed_documents(texts) for texts in lists]), strict=True
        ):
            np.testing.assert_allclose(vectors, expected(texts), atol=1e-6)
    assert server.in_flight_peak == 4


# --- replicas ---


def test_replicas_share_the_work(serve, embedder, call):
    servers = [serve("vllm", latency=0.01), serve("vllm", latency=0.01)]
    one = embedder([server.url for server in servers], batch_size=1)
    texts = [f"t{n}" for n in range(20)]
    np.testing.assert_allclose(call(one, "embed_documents", texts), expected(texts), atol=1e-6)
    assert all(len(server.work) >= 6 for server in servers)


def test_a_dead_replica_costs_nothing(serve, embedder, call, waits):
    server = serve("vllm")
    one = embedder(["http://127.0.0.1:9", server.url], batch_size=2)
    texts = [f"t{n}" for n in range(10)]
    np.testing.assert_allclose(call(one, "embed_documents", texts), expected(texts), atol=1e-6)


def test_replicas_of_different_models_are_noticed(serve, embedder, call):
    servers = [serve("vllm", dims=64, latency=0.01), serve("vllm", dims=32, latency=0.01)]
    with pytest.raises(Exception, match=r"not replicas of one model: vectors of one have 64 numbers, of the other 32"):
        call(embedder([s.url for s in servers], batch_size=1), "embed_documents", [f"t{n}" for n in range(20)])


# --- half precision on the wire ---


def test_float16_halves_what_travels_and_nothing_else(serve, embedder, call):
    server = serve("vllm")
    vectors = call(embedder(server, embed_dtype="float16"), "embed_documents", ["a", "b"])
    assert server.work[-1].body["embed_dtype"] == "float16"
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected(["a", "b"]), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)


@pytest.mark.parametrize(("engine", "version"), [("sglang", None), ("ollama", None), ("vllm", "0.12.0")])
def test_float16_is_refused_where_it_is_not_to_be_had(serve, embedder, call, engine, version):
    with pytest.raises(ConfigurationError, match=r"embed_dtype='float16' needs vLLM 0\.13"):
        call(embedder(serve(engine, version=version), embed_dtype="float16"), "embed_documents", ["a"])
