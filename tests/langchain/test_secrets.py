"""Whatever is printed, dumped, logged or raised holds no key."""

import pickle
import traceback

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.load import dumpd, dumps
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_ragpair import RagpairEmbeddings, RagpairRerank
from ragpair import RagpairError
from ragpair.testing import FakeServer, Fault

KEY = "SEKRET-a1b2c3"
SETTINGS = {"base_url": "http://127.0.0.1:9", "api_key": KEY, "headers": {"X-Gateway": KEY}}


def embeddings():
    return RagpairEmbeddings(**SETTINGS)


def rerank():
    return RagpairRerank(**SETTINGS)


def retriever():
    store = InMemoryVectorStore(embeddings())
    return ContextualCompressionRetriever(base_compressor=rerank(), base_retriever=store.as_retriever())


@pytest.mark.parametrize("make", [embeddings, rerank, retriever])
@pytest.mark.parametrize("show", [repr, str, dumps, dumpd, vars, lambda thing: f"{thing}"])
def test_nothing_that_shows_an_object_shows_the_key(make, show):
    assert KEY not in str(show(make()))


@pytest.mark.parametrize("make", [embeddings, rerank])
@pytest.mark.parametrize(
    "show",
    [
        lambda thing: thing.model_dump_json(),
        lambda thing: thing.model_dump(mode="json"),
        lambda thing: thing.model_dump(),
        lambda thing: list(thing.__rich_repr__()),
    ],
)
def test_no_dump_of_pydantic_holds_the_key(make, show):
    assert KEY not in str(show(make()))


@pytest.mark.parametrize("cls", [RagpairEmbeddings, RagpairRerank])
@pytest.mark.parametrize(
    "wrong",
    [
        {"api_kee": KEY},
        {"engine": "tgi"},
        {"timeout": 0},
        {"family": "nonesuch"},
        {"headers": {"X-Gateway": [KEY]}},
        {"api_key": [KEY]},
        {"base_url": f"http://me:{KEY}@server"},
    ],
)
def test_a_bad_option_does_not_show_the_key(cls, wrong):
    with pytest.raises(RagpairError) as failed:
        cls(**{**SETTINGS, **wrong})
    assert KEY not in "".join(traceback.format_exception(failed.value))
    assert KEY.encode() not in pickle.dumps(failed.value)


def test_a_refused_change_does_not_show_the_key():
    with pytest.raises(RagpairError) as failed:
        embeddings().api_key = KEY
    assert KEY not in "".join(traceback.format_exception(failed.value))


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=401, times=None),
        Fault(status=400, times=None),
        Fault(status=503, times=None),
        Fault.drop(times=None),
        Fault.garbage(b"nonsense", times=None),
    ],
    ids=["401", "400", "503", "dropped", "garbage"],
)
def test_no_error_of_a_server_holds_the_key(call, fault):
    with FakeServer("vllm", api_key=KEY) as server:
        made = RagpairEmbeddings(**{**SETTINGS, "base_url": server.url, "max_retries": 0})
        server.fail(fault)
        with pytest.raises(RagpairError) as failed:
            call(made, "embed_query", "parcel")
    assert KEY not in "".join(traceback.format_exception(failed.value))
    assert KEY.encode() not in pickle.dumps(failed.value)
