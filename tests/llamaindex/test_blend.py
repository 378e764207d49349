"""RagpairSignalBlend behind a reranker, as LlamaIndex runs it."""

import pickle

import pytest
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from langchain_ragpair import RagpairSignalBlend as LangChainBlend
from llamaindex_ragpair import RagpairRerank, RagpairSignalBlend
from llamaindex_ragpair._nodes import with_hidden
from ragpair import ConfigurationError, InvalidInput
from ragpair.calibrate import Calibration

WEIGHTS = {"price": -1.0, "sales": 0.5}
TOO_LONG = "parcel " * 600
LINE = Calibration(0.5, 1.0, 1.0, slope=20.0, intercept=-10.0, score_kind="cosine", n=100)
ROWS = [("earbuds, gold", 0.9, 80.0, 100), ("earbuds", 0.85, 40.0, 900), ("case for earbuds", 0.05, 4.0, 9000)]


def nodes(**more):
    """As a reranker leaves them."""
    return [
        NodeWithScore(
            node=TextNode(
                text=title,
                id_=title,
                metadata={
                    "price": price,
                    "sales": sales,
                    "score_kind": "probability",
                    "relevance_score": score,
                    **more,
                },
                excluded_llm_metadata_keys=["score_kind", "relevance_score"],
            ),
            score=score,
        )
        for title, score, price, sales in ROWS
    ]


def titles(found):
    return [item.node.get_content() for item in found]


def test_cheap_best_sellers_first_and_no_irrelevant_bargain(call):
    given = nodes()
    found = call(RagpairSignalBlend(weights=WEIGHTS), "postprocess_nodes", given, query_str="earbuds")
    assert titles(found) == ["earbuds", "earbuds, gold", "case for earbuds"]
    assert all(type(item.score) is float for item in found)
    assert given == nodes()


def test_the_same_numbers_as_in_langchain():
    from langchain_core.documents import Document

    found = RagpairSignalBlend(weights=WEIGHTS).postprocess_nodes(nodes(), query_str="earbuds")
    given = [
        Document(title, metadata={"relevance_score": score, "price": price, "sales": sales})
        for title, score, price, sales in ROWS
    ]
    there = LangChainBlend(weights=WEIGHTS).compress_documents(given, "earbuds")
    assert [item.score for item in found] == [document.metadata["blended_score"] for document in there]


def test_the_relevance_is_kept_out_of_prompts():
    best = RagpairSignalBlend(weights=WEIGHTS).postprocess_nodes(nodes(), query_str="earbuds")[0].node
    assert best.metadata["relevance_score"] == 0.85
    assert "relevance_score" not in best.get_content(MetadataMode.LLM) + best.get_content(MetadataMode.EMBED)
    assert best.node_id == "earbuds"


def test_top_n(call):
    assert len(call(RagpairSignalBlend(weights=WEIGHTS, top_n=1), "postprocess_nodes", nodes())) == 1
    assert len(call(RagpairSignalBlend(weights=WEIGHTS), "postprocess_nodes", nodes() * 2)) == 3
    assert len(call(RagpairSignalBlend(weights=WEIGHTS, top_n=None), "postprocess_nodes", nodes() * 2)) == 6
    assert call(RagpairSignalBlend(weights=WEIGHTS), "postprocess_nodes", []) == []


def test_behind_the_reranker(serve, call):
    server = serve("vllm", task="rerank")
    rerank = RagpairRerank(base_url=server.url, top_n=None, on_error="return")
    given = [
        NodeWithScore(node=TextNode(text=text, metadata={"price": price}))
        for text, price in [(TOO_LONG, 1), ("where is my parcel", 50), ("where is my parcel now", 5), ("bananas", 1)]
    ]
    judged = call(rerank, "postprocess_nodes", given, query_str="where is my parcel")
    found = call(RagpairSignalBlend(weights={"price": -5}, top_n=None), "postprocess_nodes", judged)
    assert titles(found) == ["where is my parcel now", "where is my parcel", "bananas", TOO_LONG]


def judged_by_cosines(serve, call):
    rerank = RagpairRerank(base_url=serve("vllm", task="embed").url, family=None, scores="raw", top_n=None)
    given = [NodeWithScore(node=TextNode(text=f"my parcel {n}", metadata={"price": n})) for n in range(4)]
    return call(rerank, "postprocess_nodes", given, query_str="my parcel")


def test_cosines_of_our_reranker_are_refused_until_they_are_calibrated(serve, call):
    judged = judged_by_cosines(serve, call)
    with pytest.raises(ConfigurationError, match="cosine cannot be blended"):
        call(RagpairSignalBlend(weights={"price": -1}), "postprocess_nodes", judged)
    blend = RagpairSignalBlend(weights={"price": -1}, calibration=LINE, top_n=None)
    assert len(call(blend, "postprocess_nodes", judged)) == 4


def test_a_calibration_for_another_kind_of_score_is_refused(serve, call):
    rerank = RagpairRerank(base_url=serve("vllm", task="rerank").url, top_n=None)
    judged = call(rerank, "postprocess_nodes", judged_by_cosines(serve, call), query_str="my parcel")
    with pytest.raises(ConfigurationError, match="fitted on cosine scores, and these are probability"):
        call(RagpairSignalBlend(weights={"price": -1}, calibration=LINE), "postprocess_nodes", judged)


def test_a_second_blend_begins_with_the_relevance(serve, call):
    once = RagpairSignalBlend(weights={"price": -1}, calibration=LINE, top_n=None)
    judged = judged_by_cosines(serve, call)
    blended = call(once, "postprocess_nodes", judged)
    assert call(once, "postprocess_nodes", blended) == blended
    rerank = RagpairRerank(base_url=serve("vllm", task="rerank").url, top_n=None)
    assert call(rerank, "postprocess_nodes", blended, query_str="my parcel")[0].node.metadata.keys() == {
        "price",
        "relevance_score",
        "score_kind",
    }


def test_the_last_of_two_rerankers_counts(serve, call):
    rerank = RagpairRerank(base_url=serve("vllm", task="rerank").url, top_n=None)
    judged = call(rerank, "postprocess_nodes", judged_by_cosines(serve, call), query_str="my parcel")
    assert {item.node.metadata["score_kind"] for item in judged} == {"probability"}
    assert len(call(RagpairSignalBlend(weights={"price": -1}, top_n=None), "postprocess_nodes", judged)) == 4


def test_similarities_of_a_retriever_are_no_relevance(call):
    given = [NodeWithScore(node=TextNode(text="my parcel", metadata={"price": 1}), score=0.8)]
    with pytest.raises(InvalidInput, match=r"a score that a retriever may have given.*before RagpairSignalBlend"):
        call(RagpairSignalBlend(weights={"price": -1}), "postprocess_nodes", given)
    fitted = RagpairSignalBlend(weights={"price": -1}, calibration=LINE)
    assert call(fitted, "postprocess_nodes", given)[0].node.metadata["relevance_score"] == 0.8


def test_scores_that_another_reranker_set_since_are_no_probabilities_and_not_forgotten(call):
    """Others set the score of a node and leave its metadata."""
    for given in (nodes(), call(RagpairSignalBlend(weights=WEIGHTS), "postprocess_nodes", nodes())):
        scores = (0.1, 0.2, 0.9)
        others = [NodeWithScore(node=item.node, score=score) for item, score in zip(given, scores, strict=True)]
        with pytest.raises(InvalidInput, match="Scores of another reranker need a calibration="):
            call(RagpairSignalBlend(weights=WEIGHTS), "postprocess_nodes", others)
        fitted = RagpairSignalBlend(weights={"price": 0.0}, calibration=LINE)  # for cosines, as theirs may be
        found = call(fitted, "postprocess_nodes", others)
        assert [item.node.metadata["relevance_score"] for item in found] == [0.9, 0.2, 0.1]
        assert call(fitted, "postprocess_nodes", found) == found


def test_bad_nodes_are_named(call):
    with pytest.raises(InvalidInput, match=r"index 0 has no relevance, but no score at all.*top_n=None"):
        call(RagpairSignalBlend(weights=WEIGHTS), "postprocess_nodes", [NodeWithScore(node=nodes()[0].node)])
    with pytest.raises(InvalidInput, match=r"None of the 3 nodes has a metadata\['prize'\].*price, .*sales"):
        call(RagpairSignalBlend(weights={"prize": -1}), "postprocess_nodes", nodes())
    with pytest.raises(InvalidInput, match=r"relevance at index 0 is 9.*The node: earbuds, gold, 'earbuds, gold'"):
        call(
            RagpairSignalBlend(weights=WEIGHTS),
            "postprocess_nodes",
            [NodeWithScore(node=with_hidden(nodes()[0].node, relevance_score=9.0), score=9.0)],
        )


def test_options_that_cannot_be():
    with pytest.raises(ConfigurationError, match="weights: Field required"):
        RagpairSignalBlend()
    with pytest.raises(ConfigurationError, match="weight of 'price' is nan"):
        RagpairSignalBlend(weights={"price": float("nan")})


def test_dumps_and_pickles_make_it_again():
    first = RagpairSignalBlend(weights=WEIGHTS, calibration=LINE)
    for again in (
        RagpairSignalBlend.from_dict(first.to_dict()),
        RagpairSignalBlend(**first.model_dump()),
        pickle.loads(pickle.dumps(first)),
    ):
        assert (again.weights, again.calibration, again.top_n) == (WEIGHTS, LINE, 3)
