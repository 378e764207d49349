"""Servers, proxies and networks that misbehave in ways beyond the matrix of tests/faults."""

import base64

import numpy as np
import pytest

from ragpair import (
    EndpointError,
    EndpointOverloaded,
    EndpointRejected,
    MalformedReply,
    RagpairError,
    RagpairWarning,
)
from ragpair.testing import Fault
from ragpair.testing.model import embed

TEXTS = ["a", "b", "c"]
HTML = "<!DOCTYPE html><html><body><h1>Sign in</h1></body></html>"


def expected(texts=TEXTS):
    return np.array([embed(text, 64) for text in texts])


def rows(reply):
    """The vectors of a reply, in whatever list they are."""
    return reply["data"] if "data" in reply else reply["embeddings"]


# --- replies that are not what was asked for ---


def nan(reply):
    bad = base64.b64encode(np.full(64, np.nan, "<f4").tobytes()).decode()
    reply["data"][1]["embedding"] = bad


def infinite(reply):
    vector = np.zeros(64, "<f4")
    vector[5] = np.inf
    reply["data"][1]["embedding"] = base64.b64encode(vector.tobytes()).decode()


EDITS = {
    "row missing": lambda reply: rows(reply).pop(),
    "row too many": lambda reply: rows(reply).append(rows(reply)[0]),
    "no rows": lambda reply: rows(reply).clear(),
    "null in place of the rows": lambda reply: {},
    "an error in a 200": lambda reply: {"error": {"message": "oh no"}},
    "a list": lambda reply: [],
    "null": lambda reply: [None],
}
OPENAI_EDITS = {
    "index doubled": lambda reply: rows(reply)[1].update(index=0),
    "index missing": lambda reply: rows(reply)[1].pop("index"),
    "index too high": lambda reply: rows(reply)[1].update(index=3),
    "index negative": lambda reply: rows(reply)[1].update(index=-1),
    "index as a string": lambda reply: rows(reply)[1].update(index="1"),
    "row is null": lambda reply: rows(reply).__setitem__(1, None),
    "NaN": nan,
    "infinity": infinite,
    "null for a vector": lambda reply: rows(reply)[1].update(embedding=None),
    "null in a vector": lambda reply: rows(reply)[1].update(embedding=[None] * 64),
    "no vector": lambda reply: rows(reply)[1].pop("embedding"),
    "other width": lambda reply: rows(reply)[1].update(embedding=[0.5] * 63),
    "empty vector": lambda reply: rows(reply)[1].update(embedding=[]),
    "all vectors empty": lambda reply: [row.update(embedding=[]) for row in rows(reply)][:0] or None,
    "matrix": lambda reply: rows(reply)[1].update(embedding=[[0.5] * 64] * 2),
    "words": lambda reply: rows(reply)[1].update(embedding="not base64!"),
    "base64 of three bytes": lambda reply: rows(reply)[1].update(embedding="AAAA"),
    "object": lambda reply: rows(reply)[1].update(embedding={"values": [1]}),
    "zeros": lambda reply: rows(reply)[1].update(embedding=[0.0] * 64),
}
OLLAMA_EDITS = {
    "row is null": lambda reply: rows(reply).__setitem__(1, None),
    "null in a vector": lambda reply: rows(reply)[1].__setitem__(3, None),
    "other width": lambda reply: rows(reply)[1].pop(),
    "zeros": lambda reply: rows(reply).__setitem__(1, [0.0] * 64),
    "words": lambda reply: rows(reply).__setitem__(1, "word"),
}
CASES = [(engine, name, edit) for engine in ("vllm", "ollama") for name, edit in EDITS.items()]
CASES += [("vllm", name, edit) for name, edit in OPENAI_EDITS.items()]
CASES += [  # the same reading: a few will do
    (engine, name, OPENAI_EDITS[name])
    for engine in ("sglang", "llamacpp")
    for name in ("index doubled", "NaN", "null in a vector", "other width")
]
CASES += [("ollama", name, edit) for name, edit in OLLAMA_EDITS.items()]


@pytest.mark.parametrize(("engine", "edit"), [(e, x) for e, _, x in CASES], ids=[f"{e}-{n}" for e, n, _ in CASES])
def test_vectors_that_are_none(serve, embedder, call, engine, edit):
    server = serve(engine)
    server.fail(Fault.edit(edit))
    with pytest.raises(MalformedReply) as caught:
        call(embedder(server), "embed_documents", TEXTS)
    assert len(str(caught.value)) < 1000
    assert len(server.work) == 1  # asking again would not help


SCORE_EDITS = {
    "vllm": {
        "row missing": lambda reply: reply["data"].pop(),
        "index doubled": lambda reply: reply["data"][1].update(index=0),
        "null": lambda reply: reply["data"][1].update(score=None),
        "no score": lambda reply: reply["data"][1].pop("score"),
        "words": lambda reply: reply["data"][1].update(score="high"),
        "list": lambda reply: reply["data"][1].update(score=[1.0]),
        "other": lambda reply: {"results": []},
    },
    "sglang": {
        "row missing": lambda reply: reply.pop(),
        "index doubled": lambda reply: reply[1].update(index=reply[0]["index"]),
        "null": lambda reply: reply[1].update(score=None),
        "object": lambda reply: {"results": reply},
        "row is null": lambda reply: reply.__setitem__(0, None),
    },
    "llamacpp": {
        "row missing": lambda reply: reply["results"].pop(),
        "null": lambda reply: reply["results"][1].update(relevance_score=None),
        "list": lambda reply: reply["results"],
    },
}
SCORE_CASES = [(engine, name, edit) for engine, edits in SCORE_EDITS.items() for name, edit in edits.items()]


@pytest.mark.parametrize(
    ("engine", "edit"), [(e, x) for e, _, x in SCORE_CASES], ids=[f"{e}-{n}" for e, n, _ in SCORE_CASES]
)
def test_scores_that_are_none(serve, reranker, call, engine, edit):
    server = serve(engine, task="rerank")
    one = reranker(server)
    call(one, "score", "q", ["warm up"])
    server.fail(Fault.edit(edit))
    with pytest.raises(MalformedReply):
        call(one, "score", "q", TEXTS)


ANSWER_EDITS = {
    "vllm": [
        lambda reply: reply["data"][0].pop("probs"),
        lambda reply: reply["data"][0].update(probs=[]),
        lambda reply: reply["data"][0].update(probs=None),
        lambda reply: reply["data"][0].update(probs=[None]),
    ],
    "sglang": [
        lambda reply: reply["scores"].pop(),
        lambda reply: reply["scores"].__setitem__(0, None),
        lambda reply: reply["scores"].__setitem__(0, []),
        lambda reply: reply["scores"].__setitem__(0, [None, None]),
        lambda reply: reply.pop("scores"),
    ],
    "ollama": [
        lambda reply: reply.pop("logprobs"),
        lambda reply: reply.update(logprobs=[]),
        lambda reply: reply.update(logprobs=[None]),
        lambda reply: reply["logprobs"][0].pop("top_logprobs"),
        lambda reply: reply["logprobs"][0]["top_logprobs"][0].update(logprob=None),
    ],
    "llamacpp": [
        lambda reply: reply.pop(),
        lambda reply: reply[0].pop("completion_probabilities"),
        lambda reply: reply[0].update(completion_probabilities=[None]),
        lambda reply: reply[0]["completion_probabilities"][0].update(top_logprobs=[]),
    ],
}
ANSWER_CASES = [(engine, edit) for engine, edits in ANSWER_EDITS.items() for edit in edits]


@pytest.mark.parametrize(("engine", "edit"), ANSWER_CASES)
def test_answers_that_are_none(serve, reranker, call, engine, edit):
    server = serve(engine, task="answers")
    one = reranker(server)
    call(one, "score", "q", ["warm up"])
    server.fail(Fault.edit(edit))
    with pytest.raises(MalformedReply):
        call(one, "score", "q", TEXTS)


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"data": [{"index": 0, "emb', b"\x00\xff", b"OK", b"NaN", b'"text"', b"null"]
)
def test_what_is_no_json_object(serve, embedder, call, engine, body):
    server = serve(engine)
    server.fail(Fault.garbage(body))
    with pytest.raises(MalformedReply, match=server.url):
        call(embedder(server), "embed_documents", TEXTS)


JUNK = [
    b"null",
    b"[]",
    b"{}",
    b'"x"',
    b'{"data": {"a": 1}}',
    b'{"data": [{}]}',
    b'{"data": [null]}',
    b'{"models": [{}], "model_info": 3, "capabilities": 3, "version": null, "tokens": 3, "count": "3"}',
    b'{"embedding": 3, "architectures": [1], "data": "x", "results": 3, "scores": 3}',
    b"<html>",
]


@pytest.mark.parametrize("task", ["embed", "answers"])
@pytest.mark.parametrize("named", [True, False], ids=["engine named", "engine asked for"])
def test_junk_in_any_reply_never_leaves_the_error_tree(serve, embedder, reranker, engine, task, named):
    options = {"engine": engine} if named else {}
    server = serve(engine, task=task)

    def use():
        if task == "embed":
            embedder(server, family="qwen3-embedding", **options).embed_documents(["a"])
        else:
            reranker(server, family="qwen3-reranker", **options).score("q", ["d"])

    use()
    escaped = []
    for path in dict.fromkeys(request.path for request in server.requests):
        for body in JUNK:
            server.clear()
            server.fail(Fault.garbage(body, path=path, times=None))
            try:
                use()
            except (RagpairError, RagpairWarning):
                pass
            except Exception as exc:
                escaped.append(f"{path} {body!r}: {exc!r}")
    assert escaped == []


# --- web pages, redirects, wrong statuses ---


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/models"])
@pytest.mark.parametrize("status", [200, 403, 404, 502])
def test_a_web_page_of_a_proxy(serve, embedder, call, waits, path, status):
    server = serve("vllm")
    server.fail(Fault(status, HTML, content_type="text/html; charset=utf-8", path=path, times=None))
    with pytest.raises(EndpointError) as caught:
        call(embedder(server), "embed_documents", TEXTS)
    assert "html" in str(caught.value).lower() or "web page" in str(caught.value)
    assert server.url in str(caught.value)
    if status == 502:
        assert isinstance(caught.value, EndpointOverloaded)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/models"])
def test_redirects_are_not_followed(serve, embedder, call, status, path):
    elsewhere = serve("vllm")
    server = serve("vllm")
    fault = Fault(status, "", headers={"Location": f"{elsewhere.url}{path}"}, path=path, times=None)
    server.fail(fault)
    with pytest.raises(EndpointRejected, match=rf"redirects to '{elsewhere.url}") as caught:
        call(embedder(server, api_key="secret"), "embed_documents", TEXTS)
    assert caught.value.status == status
    assert elsewhere.requests == []


@pytest.mark.parametrize("status", [400, 501])
def test_refusals_carry_the_server_s_own_words(serve, embedder, call, engine, status):
    server = serve(engine)
    server.fail(Fault(status, {"error": {"message": "the moon is wrong"}}, times=None))
    with pytest.raises(EndpointRejected, match="the moon is wrong") as caught:
        call(embedder(server), "embed_documents", TEXTS)
    assert (caught.value.status, caught.value.detail) == (status, "the moon is wrong")
    assert len(server.work) == (2 if status == 400 else 1)  # a harmless text is refused, too, so no text is blamed


def test_the_words_of_a_server_are_kept_short(serve, embedder, call):
    server = serve("vllm")
    server.fail(Fault(400, {"error": {"message": "no " * 100_000}}, times=None))
    with pytest.raises(EndpointRejected) as caught:
        call(embedder(server), "embed_documents", TEXTS)
    assert len(str(caught.value)) < 1000


# --- faults that pass ---


def test_three_faults_that_pass_are_not_seen(serve, reranker, call, waits):
    server = serve("vllm", task="rerank")
    server.fail(Fault(status=503, times=3))
    assert call(reranker(server), "score", "q", ["q"])[0] > 0.9
    assert len(waits) == 3


def test_a_server_that_is_still_starting(serve, embedder, call, engine, waits):
    server = serve(engine)
    server.fail(Fault(503, "starting", path="/v1/models", times=2, content_type="text/plain"))
    np.testing.assert_allclose(call(embedder(server), "embed_documents", TEXTS), expected(), atol=1e-6)


def test_retry_after_is_obeyed(serve, embedder, call, waits):
    server = serve("vllm")
    server.fail(Fault(status=429, headers={"Retry-After": "3"}))
    call(embedder(server), "embed_documents", TEXTS)
    assert waits == [3.0]


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_server_that_is_not_even_asked_for_its_models(serve, embedder, call, waits, status):
    server = serve("vllm")
    for path in ("/v1/models", "/version", "/api/version"):
        server.fail(Fault(status, {"error": "loading"}, path=path, times=None))
    with pytest.raises(EndpointOverloaded):
        call(embedder(server), "embed_documents", ["a"])
    assert len(server.requests) == 4


def test_no_retries_if_none_are_wanted(serve, embedder, call, waits):
    server = serve("vllm")
    one = embedder(server, max_retries=0)
    server.fail(Fault(status=503))
    with pytest.raises(EndpointOverloaded):
        call(one, "embed_documents", ["a"])
    assert waits == []


def test_one_batch_that_fails_fails_the_call_and_stops_the_rest(serve, embedder, call):
    server = serve("vllm", latency=0.01)
    one = embedder(server, batch_size=1, max_concurrency=2)
    call(one, "embed_documents", ["warm up"])
    server.clear()
    server.fail(Fault(400, {"error": {"message": "no"}}))
    with pytest.raises(EndpointRejected):
        call(one, "embed_documents", [f"t{n}" for n in range(100)])
    assert len(server.work) < 20
    assert call(one, "embed_documents", ["still works"]).shape == (1, 64)


def test_a_null_in_place_of_a_vector_is_called_a_null(serve, embedder):
    server = serve("vllm")
    server.fail(Fault.edit(lambda reply: reply["data"][0].update(embedding=None)))
    with pytest.raises(MalformedReply) as caught:
        embedder(server).embed_documents(["a"])
    assert "late interaction" not in str(caught.value)
