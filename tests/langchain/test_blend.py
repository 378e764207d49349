"""RagpairSignalBlend behind a reranker, as LangChain runs it."""

import asyncio
import pickle

import pytest
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document

from langchain_ragpair import RagpairRerank, RagpairSignalBlend
from ragpair import ConfigurationError, InvalidInput
from ragpair.blend import blend
from ragpair.calibrate import Calibration

WEIGHTS = {"price": -1.0, "sales": 0.5}
TOO_LONG = "parcel " * 600


def documents(**more):
    rows = [("earbuds, gold", 0.9, 80.0, 100), ("earbuds", 0.85, 40.0, 900), ("case for earbuds", 0.05, 4.0, 9000)]
    return [
        Document(title, id=title, metadata={"relevance_score": score, "price": price, "sales": sales, **more})
        for title, score, price, sales in rows
    ]


def titles(found):
    return [document.page_content for document in found]


@pytest.fixture(params=["sync", "async"])
def compress(request):
    def run(compressor, given, query="earbuds"):
        if request.param == "sync":
            return compressor.compress_documents(given, query)
        return asyncio.run(compressor.acompress_documents(given, query))

    return run


def test_cheap_best_sellers_first_and_no_irrelevant_bargain(compress):
    found = compress(RagpairSignalBlend(weights=WEIGHTS), documents(score_kind="probability"))
    assert titles(found) == ["earbuds", "earbuds, gold", "case for earbuds"]
    expected = blend([0.9, 0.85, 0.05], {"price": [80, 40, 4], "sales": [100, 900, 9000]}, WEIGHTS)
    assert [document.metadata["blended_score"] for document in found] == pytest.approx(sorted(expected, reverse=True))
    assert all(type(document.metadata["blended_score"]) is float for document in found)


def test_what_came_in_stays_as_it_was(compress):
    given = documents()
    found = compress(RagpairSignalBlend(weights=WEIGHTS), given)
    assert given == documents()
    assert (found[0].id, found[0].metadata["relevance_score"]) == ("earbuds", 0.85)


def test_top_n(compress):
    assert len(compress(RagpairSignalBlend(weights=WEIGHTS, top_n=1), documents())) == 1
    assert len(compress(RagpairSignalBlend(weights=WEIGHTS), documents() * 2)) == 3
    assert len(compress(RagpairSignalBlend(weights=WEIGHTS, top_n=None), documents() * 2)) == 6
    assert compress(RagpairSignalBlend(weights=WEIGHTS), []) == []


def test_behind_the_reranker_in_one_pipeline(serve, compress):
    server = serve("vllm", task="rerank")
    rerank = RagpairRerank(base_url=server.url, top_n=None)
    pipeline = DocumentCompressorPipeline(transformers=[rerank, RagpairSignalBlend(weights={"price": -5})])
    given = [
        Document("where is my parcel", metadata={"price": 50}),
        Document("where is my parcel now", metadata={"price": 5}),
        Document("bananas", metadata={"price": 1}),
    ]
    assert titles(compress(pipeline, given, "where is my parcel")) == titles([given[1], given[0], given[2]])


def test_cosines_are_refused_until_they_are_calibrated(compress):
    given = documents(score_kind="cosine")
    with pytest.raises(ConfigurationError, match="cosine cannot be blended"):
        compress(RagpairSignalBlend(weights=WEIGHTS), given)
    line = Calibration(0.5, 1.0, 1.0, slope=20.0, intercept=-10.0, score_kind="cosine", n=100)
    found = compress(RagpairSignalBlend(weights=WEIGHTS, calibration=line), given)
    assert titles(found) == ["earbuds", "earbuds, gold", "case for earbuds"]
    with pytest.raises(ConfigurationError, match="fitted on cosine scores, and these are probability"):
        compress(RagpairSignalBlend(weights=WEIGHTS, calibration=line), documents(score_kind="probability"))
    assert compress(RagpairSignalBlend(weights=WEIGHTS, calibration=line), documents())  # a reranker that says nothing


def test_scores_of_several_kinds(compress):
    given = [*documents(score_kind="cosine"), *documents(score_kind="probability")]
    with pytest.raises(ConfigurationError, match="several kinds: cosine, probability"):
        compress(RagpairSignalBlend(weights=WEIGHTS), given)


def test_what_could_not_be_judged_comes_last(serve, compress):
    server = serve("vllm", task="rerank")
    rerank = RagpairRerank(base_url=server.url, top_n=None, on_error="return")
    given = [Document(title, metadata={"price": 1}) for title in ("my parcel", TOO_LONG, "where is my parcel")]
    pipeline = DocumentCompressorPipeline(transformers=[rerank, RagpairSignalBlend(weights={"price": -1})])
    assert titles(compress(pipeline, given, "where is my parcel")) == ["where is my parcel", "my parcel", TOO_LONG]
    only = [Document("x", metadata={"rerank_error": "gone"})]
    assert compress(RagpairSignalBlend(weights=WEIGHTS), only) == only


def test_bad_documents_are_named(compress):
    with pytest.raises(InvalidInput, match=r"index 0 has no metadata\['relevance_score'\].*top_n=None"):
        compress(RagpairSignalBlend(weights=WEIGHTS), [Document("x", metadata={"price": 1})])
    with pytest.raises(
        InvalidInput, match=r"None of the 3 documents has a metadata\['prize'\].*price, relevance_score"
    ):
        compress(RagpairSignalBlend(weights={"prize": -1}), documents())
    given = documents()
    given[1].metadata["price"] = "40 EUR"
    with pytest.raises(InvalidInput, match=r"'price' at index 1 is '40 EUR'.*The document: earbuds, 'earbuds'"):
        compress(RagpairSignalBlend(weights=WEIGHTS), given)


def test_a_document_without_the_signal_counts_like_the_typical_one(compress):
    given = documents()
    del given[0].metadata["sales"]
    given[1].metadata["sales"] = None
    assert len(compress(RagpairSignalBlend(weights=WEIGHTS), given)) == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "weights: Field required"),
        ({"weights": {}}, "weights: Dictionary should have at least 1 item"),
        ({"weights": {"price": "cheap"}}, r"weights.price: Input should be a valid number"),
        ({"weights": {"price": float("inf")}}, "weight of 'price' is inf"),
        ({"weights": WEIGHTS, "top_n": 0}, "top_n"),
        ({"weights": WEIGHTS, "weight": 1}, "no option 'weight'. Did you mean weights"),
    ],
)
def test_options_that_cannot_be(fields, message):
    with pytest.raises(ConfigurationError, match=message):
        RagpairSignalBlend(**fields)


def test_a_slider_makes_copies():
    first = RagpairSignalBlend(weights=WEIGHTS)
    with pytest.raises(ConfigurationError, match="model_copy"):
        first.weights = {"price": -2}
    assert first.model_copy(update={"weights": {"price": -2}}).weights == {"price": -2.0}
    assert first.weights == WEIGHTS


def test_it_pickles():
    line = Calibration(0.5, 1.0, 1.0, slope=20.0, intercept=-10.0, score_kind="cosine", n=100)
    first = RagpairSignalBlend(weights=WEIGHTS, calibration=line)
    assert pickle.loads(pickle.dumps(first)) == first


def test_it_shows_in_traces():
    names = []

    class Seen(BaseCallbackHandler):
        def on_chain_start(self, serialized, inputs, *, name=None, **kwargs):
            names.append(name)

    RagpairSignalBlend(weights=WEIGHTS).compress_documents(documents(), "earbuds", [Seen()])
    assert names == ["RagpairSignalBlend"]
