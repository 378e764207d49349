"""One text that is to blame must not cost the others, nor be looked for by hand: it is found, named and left out."""

import numpy as np
import pytest

from ragpair import EndpointRejected, MalformedReply, RagpairError
from ragpair.testing import Fault, edits

from .cases import EMBED, WAYS

QUEUED = [way for way in WAYS if way.engine in ("vllm", "sglang")]
MANY = [f"red {n}" for n in range(40)]


def client(way, embedder, reranker, server, **options):
    return (embedder if way.task == "embed" else reranker)(server, **options)


def sizes(server):
    """How many texts or pairs each request held."""
    fields = ("input", "text_2", "documents", "items")
    return [next(len(request.body[field]) for field in fields if field in request.body) for request in server.work]


# --- a queue that is shorter than a batch ---


@pytest.mark.parametrize("way", QUEUED, ids=str)
def test_batches_that_the_queue_never_holds_are_halved(embedder, reranker, call, waits, way):
    with way.server(queue=7) as server:
        one = client(way, embedder, reranker, server)
        result = call(one, *way.arguments(MANY))
        np.testing.assert_allclose(result, way.expected(MANY), atol=1e-6)


@pytest.mark.parametrize("way", QUEUED, ids=str)
def test_a_text_that_the_queue_never_holds_is_an_error(embedder, reranker, call, waits, way):
    with way.server() as server:
        one = client(way, embedder, reranker, server)
        call(one, *way.arguments(["warm up"]))
        full = {"vllm": "cannot accept new requests", "sglang": "The request queue is full."}[way.engine]
        server.fail(Fault(503, {"error": {"message": full}}, times=None))
        with pytest.raises(RagpairError, match=r"503.*queue|503.*new requests"):
            call(one, *way.arguments(MANY[:2]))


@pytest.mark.parametrize("way", QUEUED, ids=str)
def test_how_much_a_queue_holds_is_remembered(embedder, reranker, call, waits, way):
    with way.server(queue=7) as server:
        one = client(way, embedder, reranker, server)
        call(one, *way.arguments(MANY))
        refused = sum(size > 7 for size in sizes(server))
        server.clear()
        result = call(one, *way.arguments(MANY))
        np.testing.assert_allclose(result, way.expected(MANY), atol=1e-6)
        assert sum(size > 7 for size in sizes(server)) < refused


# --- a text that the server does not like ---


@pytest.mark.parametrize("status", [400, 413, 422, 500])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_text_to_blame_is_named(embedder, reranker, call, waits, way, status):
    with way.server() as server:
        one = client(way, embedder, reranker, server)
        call(one, *way.arguments(["warm up"]))
        server.clear()
        server.fail(Fault(status, {"error": {"message": "I do not like it"}}, holding="red 17", times=None))
        with pytest.raises(EndpointRejected, match=r"I do not like it.*17") as caught:
            call(one, *way.arguments(MANY))
        assert (caught.value.index, caught.value.status, caught.value.endpoint) == (17, status, server.url)
        assert len(server.work) < 60  # found by halving, not one by one: 500 is asked twice


@pytest.mark.parametrize("edit", [edits.nan, edits.null], ids=["NaN", "null"])
@pytest.mark.parametrize("way", EMBED, ids=str)
def test_a_vector_that_is_none_is_named_by_its_text(embedder, call, waits, way, edit):
    with way.server() as server:
        one = embedder(server, batch_size=3)
        call(one, "embed_documents", ["warm up"])
        server.fail(Fault.edit(edit, holding="red 4"))
        with pytest.raises(MalformedReply, match="text 5") as caught:
            call(one, "embed_documents", ["red 0", "red 0", "red 1", "red 2", "red 3", "red 4"])
        assert (caught.value.index, caught.value.endpoint) == (5, server.url)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_what_can_be_had_is_returned_on_request(embedder, reranker, call, waits, way):
    with way.server() as server:
        one = client(way, embedder, reranker, server)
        call(one, *way.arguments(["warm up"]))
        for bad in ("red 17", "red 30"):
            server.fail(Fault(400, {"error": {"message": "I do not like it"}}, holding=bad, times=None))
        result = call(one, *way.arguments(MANY), on_error="return")
        good = [n for n in range(40) if n not in (17, 30)]
        np.testing.assert_allclose(result.values[good], way.expected([MANY[n] for n in good]), atol=1e-6)
        assert np.isnan(result.values[[17, 30]]).all()
        assert {n: type(error) for n, error in result.failures.items()} == dict.fromkeys((17, 30), EndpointRejected)
        assert all(error.index == n for n, error in result.failures.items())


@pytest.mark.parametrize("way", EMBED, ids=str)
def test_nothing_fails_if_nothing_is_wrong(embedder, call, way):
    with way.server() as server:
        result = call(embedder(server), "embed_documents", MANY, on_error="return")
        np.testing.assert_allclose(result.values, way.expected(MANY), atol=1e-6)
        assert result.failures == {}
