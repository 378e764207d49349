"""Several servers of one model: a pool that is none is refused, and one that fails costs nobody an answer."""

import base64

import numpy as np
import pytest

from ragpair import ConfigurationError, EndpointUnreachable
from ragpair.testing import Fault

from .cases import EMBED, TEXTS, WAYS


def turned(reply):
    """The vectors of a model with other weights."""
    for row in reply["data"]:
        vector = np.frombuffer(base64.b64decode(row["embedding"]), "<f4")
        row["embedding"] = base64.b64encode(vector[::-1].tobytes()).decode()


def client(way, embedder, reranker, servers, **options):
    return (embedder if way.task == "embed" else reranker)([server.url for server in servers], **options)


def test_models_of_other_names_are_no_replicas(serve, embedder, call, engine):
    servers = [serve(engine), serve(engine, model="BAAI/bge-m3")]
    with pytest.raises(ConfigurationError) as caught:
        call(embedder([server.url for server in servers]), "embed_documents", TEXTS)
    assert any(server.url in str(caught.value) for server in servers)


def test_vectors_of_other_widths_are_of_no_replicas(serve, embedder, call, engine):
    servers = [serve(engine, dims=8), serve(engine, dims=8), serve(engine, dims=16)]
    with pytest.raises(ConfigurationError, match="16") as caught:
        call(embedder([server.url for server in servers]), "embed_documents", TEXTS)
    assert servers[2].url in str(caught.value)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llamacpp"])
def test_vectors_of_other_weights_are_of_no_replicas(serve, embedder, call, engine):
    servers = [serve(engine), serve(engine), serve(engine)]
    servers[2].fail(Fault.edit(turned, times=None))
    with pytest.raises(ConfigurationError) as caught:
        call(embedder([server.url for server in servers]), "embed_documents", TEXTS)
    assert servers[2].url in str(caught.value)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_replica_that_is_down_at_first_is_left_out(embedder, reranker, call, way):
    with way.server() as one, way.server() as other, way.server() as down:
        down.stop()
        thing = client(way, embedder, reranker, [down, one, other], max_retries=0)
        for _ in range(3):
            np.testing.assert_allclose(call(thing, *way.arguments(TEXTS)), way.expected(TEXTS), atol=1e-6)


@pytest.mark.parametrize("way", EMBED, ids=str)
def test_no_replica_at_all(embedder, reranker, call, waits, way):
    with way.server() as one, way.server() as other:
        one.stop()
        other.stop()
        with pytest.raises(EndpointUnreachable, match="Is the server running") as caught:
            call(client(way, embedder, reranker, [one, other]), *way.arguments(TEXTS))
        assert caught.value.endpoint in (one.url, other.url)


@pytest.mark.parametrize("status", [429, 502, 503, 504, None], ids=str)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_going_on_to_a_replica_is_no_retry(embedder, reranker, call, waits, way, status):
    with way.server() as one, way.server() as other, way.server() as bad:
        thing = client(way, embedder, reranker, [one, bad, other], max_retries=0)
        call(thing, *way.arguments(["warm up"]))
        if status is None:
            bad.stop()
        else:
            bad.fail(Fault(status, times=None))
        for _ in range(3):
            np.testing.assert_allclose(call(thing, *way.arguments(TEXTS)), way.expected(TEXTS), atol=1e-6)
        assert waits == []
