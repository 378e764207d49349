"""Worker processes get copies, and send errors home."""

import copy
import multiprocessing
import pickle

import numpy as np
import pytest

from ragpair import (
    ConfigurationError,
    EndpointError,
    EndpointOverloaded,
    EndpointRejected,
    EndpointUnreachable,
    InputTooLong,
    InvalidInput,
    MalformedReply,
    RagpairError,
    RagpairWarning,
    Ranked,
    errors,
)
from ragpair.testing.model import embed

EXAMPLES = [
    RagpairError("m"),
    RagpairWarning("m"),
    ConfigurationError("m"),
    InvalidInput("m", index=3),
    InvalidInput("m"),
    EndpointError("m", endpoint="http://h"),
    EndpointUnreachable("m", endpoint="http://h"),
    EndpointRejected("m", endpoint="http://h", status=404, detail="gone"),
    EndpointOverloaded("m", endpoint="http://h", status=503, detail="full"),
    MalformedReply("m", endpoint="http://h"),
    InputTooLong("m", endpoint="http://h", index=3, length=9000, limit=512),
]
COPIES = [lambda x: pickle.loads(pickle.dumps(x)), copy.copy, copy.deepcopy]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("clone", COPIES, ids=["pickle", "copy", "deepcopy"])
def test_errors_keep_what_they_know(error, clone):
    again = clone(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_there_is_an_example_of_each_error():
    classes = {x for x in vars(errors).values() if isinstance(x, type) and issubclass(x, RagpairError | RagpairWarning)}
    assert {type(example) for example in EXAMPLES} == classes


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_embedder_keeps_its_settings(serve, embedder, call, protocol):
    server = serve("vllm", api_key="key")
    options = {
        "instruction": "Find answers",
        "dimensions": 32,
        "batch_size": 2,
        "max_concurrency": 3,
        "timeout": 7.5,
        "max_retries": 1,
        "api_key": "key",
        "headers": {"X-Team": "search"},
        "extra_body": {"priority": 1},
        "too_long": "truncate",
    }
    one = embedder(server, **options)
    before = call(one, "embed_queries", ["q"])
    again = pickle.loads(pickle.dumps(one, protocol))
    server.clear()
    with again:
        assert (call(again, "embed_queries", ["q"]) == before).all()
    assert again.endpoint == one.endpoint
    assert repr(again) == repr(one)
    assert server.texts == ["Instruct: Find answers\nQuery:q"]
    assert server.work[0].body["priority"] == 1
    assert server.work[0].headers["x-team"] == "search"


@pytest.mark.parametrize("clone", COPIES, ids=["pickle", "copy", "deepcopy"])
def test_a_reranker_keeps_its_settings(serve, reranker, call, clone):
    server = serve("sglang", task="answers")
    one = reranker(server, instruction="Find answers", scores="raw")
    before = call(one, "rank", "where is it", ["it is here", "bananas"])
    with clone(one) as again:
        assert call(again, "rank", "where is it", ["it is here", "bananas"]) == before
        assert repr(again) == repr(one)


def test_results_pickle():
    row = Ranked(3, 0.5, "probability")
    assert pickle.loads(pickle.dumps(row)) == row


def work(one, texts):
    return one.embed_documents(texts)


def test_worker_processes(serve, embedder):
    server = serve("vllm", max_tokens=50)
    one = embedder(server)
    one.embed_documents(["used before"])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        vectors = pool.apply(work, (one, ["a", "b"]))
        np.testing.assert_allclose(vectors, [embed("a", 64), embed("b", 64)], atol=1e-6)
        with pytest.raises(InputTooLong) as caught:
            pool.apply(work, (one, ["a", "word " * 100]))
        pool.close()
        pool.join()
    assert (caught.value.index, caught.value.limit, caught.value.endpoint) == (1, 50, server.url)
