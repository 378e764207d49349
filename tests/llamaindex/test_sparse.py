"""RagpairSparseEncoder: the weights of Qdrant's own BM25, and words of writings without spaces."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

qdrant_edge = pytest.importorskip("qdrant_edge")

from llamaindex_ragpair import RagpairSparseEncoder  # noqa: E402
from ragpair import ConfigurationError, InvalidInput  # noqa: E402

TEXTS = [
    "Where is my parcel? Parcels are where parcels are.",
    "Order 12345 was cancelled; E-4711.",
    "",
    "   ",
    "?!",
    "Café naïve ÄÖÜ straße",
]


@pytest.fixture(scope="module")
def bm25():
    return RagpairSparseEncoder()


def words(encoding):
    return [set(indices) for indices in encoding[0]]


@pytest.mark.parametrize("settings", [{}, {"language": "german"}, {"k": 2.0, "b": 0.1, "avg_len": 5.0}])
def test_text_with_spaces_weighs_as_in_qdrant(settings):
    indices, values = RagpairSparseEncoder(**settings).documents(TEXTS)
    reference = qdrant_edge.Bm25(qdrant_edge.Bm25Config(**settings))
    for text, these, weights in zip(TEXTS, indices, values, strict=True):
        expected = reference.embed_document(text)
        assert dict(zip(these, weights, strict=True)) == pytest.approx(
            dict(zip(expected.indices, expected.values, strict=True)), rel=1e-5
        )


def test_queries_weigh_one_a_word(bm25):
    indices, values = bm25.queries(["parcel parcels order", ""])
    assert [len(these) for these in indices] == [2, 0]
    assert values == [[1.0, 1.0], []]
    assert words((indices, values))[0] <= words(bm25.documents(["my parcel, my order"]))[0]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("包裹", "您的包裹已经发货"),
        ("12345", "订单12345已取消"),
        ("iphone15手机壳", "透明手机壳，适合 iPhone15"),
        ("退款", "Refund 退款需要三天"),
        ("荷物はどこ", "荷物はどこですか"),
        ("พัสดุ", "พัสดุของฉันอยู่ที่ไหน"),
    ],
)
def test_words_are_found_in_writings_without_spaces(bm25, query, text):
    (wanted,), (there,) = words(bm25.queries([query])), words(bm25.documents([text]))
    assert wanted
    assert wanted <= there


def test_words_that_are_not_there_are_not_found(bm25):
    (wanted,), (there,) = words(bm25.queries(["发票抬头"])), words(bm25.documents(["您的包裹已经发货"]))
    assert not wanted & there


def test_values_are_plain_lists(bm25):
    indices, values = bm25.documents(["a parcel", "包裹"])
    assert type(indices[0][0]) is int
    assert type(values[0][0]) is float
    assert bm25.documents([]) == ([], [])


def test_both_functions_pickle(bm25):
    bm25.documents(["包裹"])
    documents, queries = pickle.loads(pickle.dumps((bm25.documents, bm25.queries)))
    assert documents(TEXTS) == bm25.documents(TEXTS)
    assert queries(TEXTS) == bm25.queries(TEXTS)
    german = RagpairSparseEncoder(language="german")
    assert pickle.loads(pickle.dumps(german)).documents(TEXTS) == german.documents(TEXTS)


def test_six_threads(bm25):
    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(lambda _: RagpairSparseEncoder().documents([*TEXTS, "包裹"]), range(12)))
    assert all(result == bm25.documents([*TEXTS, "包裹"]) for result in results)


@pytest.mark.parametrize("wrong", [{"language": "klingon"}, {"b": 2.0}, {"k": -1.0}, {"avg_len": 0.0}])
def test_impossible_settings(wrong):
    with pytest.raises(ConfigurationError):
        RagpairSparseEncoder(**wrong)


def test_what_is_no_text(bm25):
    with pytest.raises(InvalidInput, match="document 1"):
        bm25.documents(["a", None])
    with pytest.raises(InvalidInput, match="not one str"):
        bm25.queries("a")


def test_one_collection_serves_both_frameworks(bm25):
    langchain = pytest.importorskip("langchain_ragpair", exc_type=ImportError).RagpairSparseEmbeddings()
    texts = [*TEXTS, "订单12345已取消 iPhone15"]
    vectors = langchain.embed_documents(texts)
    assert bm25.documents(texts) == ([v.indices for v in vectors], [pytest.approx(v.values) for v in vectors])
