"""RagpairSparseEmbeddings: BM25 for any mix of languages, offline."""

import copy
import pickle

import pytest

from ragpair import ConfigurationError, InvalidInput
from ragpair.demo.helpdesk import load

qdrant_edge = pytest.importorskip("qdrant_edge")
pytest.importorskip("langchain_qdrant")

from langchain_ragpair import RagpairSparseEmbeddings  # noqa: E402


@pytest.fixture(scope="module")
def sparse():
    return RagpairSparseEmbeddings()


def shared(sparse, query, document):
    """How many words of the query the document has."""
    return len(set(sparse.embed_query(query).indices) & set(sparse.embed_documents([document])[0].indices))


def test_english_vectors_are_those_of_qdrant(sparse):
    reference = qdrant_edge.Bm25()
    for entry in load("en")[0]:
        expected = reference.embed_document(entry.text)
        (vector,) = sparse.embed_documents([entry.text])
        found = dict(zip(vector.indices, vector.values, strict=True))
        assert found == pytest.approx(dict(zip(expected.indices, expected.values, strict=True)), rel=1e-6)
        assert set(sparse.embed_query(entry.text).indices) == set(expected.indices)


def test_the_parameters_are_those_of_qdrant():
    text = "a parcel is a parcel, and two parcels are two boxes"
    options = {"language": "german", "k": 1.5, "b": 0.5, "avg_len": 8.0}
    expected = qdrant_edge.Bm25(qdrant_edge.Bm25Config(**options)).embed_document(text)
    (vector,) = RagpairSparseEmbeddings(**options).embed_documents([text])
    found = dict(zip(vector.indices, vector.values, strict=True))
    assert found == pytest.approx(dict(zip(expected.indices, expected.values, strict=True)), rel=1e-6)


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("parcel", "All PARCELS were sent."),
        ("包裹", "我的包裹在哪里？"),
        ("退款", "iPhone15的退款流程"),
        ("พัสดุ", "พัสดุของฉันอยู่ที่ไหน"),
        ("посылка", "посылка в пути"),
        ("1234", "订单1234已发货"),
        ("SF1234567890", "快递单号SF1234567890，请查收。"),
        ("AB-123", "part AB-123 is sold out"),
        ("$3.50", "delivery costs $3.50"),
    ],
)
def test_words_are_found_in_their_sentences(sparse, query, document):
    assert shared(sparse, query, document) == len(sparse.embed_query(query).indices) > 0


def test_japanese_words_are_found_where_the_language_is_told():
    japanese = RagpairSparseEmbeddings("japanese")
    for query in ("荷物", "荷物の返品方法", "カード"):
        assert shared(japanese, query, "私の荷物はどこですか。カードで払った荷物の返品の方法は。") == len(
            japanese.embed_query(query).indices
        )
    assert len(japanese.embed_query("荷物").indices) == 1


def test_queries_weigh_all_words_alike(sparse):
    assert sparse.embed_query("parcel parcel box 包裹").values == [1.0, 1.0, 1.0]


def test_blank_texts_have_no_words(sparse):
    assert sparse.embed_documents(["", " ", "the"]) == [sparse.embed_query("")] * 3
    assert sparse.embed_query("").indices == []
    assert sparse.embed_documents([]) == []


def test_what_is_no_text_is_refused(sparse):
    with pytest.raises(InvalidInput) as bad:
        sparse.embed_documents(["parcel", "\ud800"])
    assert bad.value.index == 1
    with pytest.raises(InvalidInput):
        sparse.embed_query(None)
    with pytest.raises(InvalidInput, match="not one str"):
        sparse.embed_documents("parcel")


def test_options_that_cannot_be_are_refused():
    with pytest.raises(ConfigurationError, match=r"language='klingon'.* english"):
        RagpairSparseEmbeddings("klingon")
    with pytest.raises(ConfigurationError, match="b must be"):
        RagpairSparseEmbeddings(b=2.0)


@pytest.mark.parametrize("copied", [lambda made: pickle.loads(pickle.dumps(made)), copy.deepcopy])
def test_copies_keep_all_settings(copied):
    made = RagpairSparseEmbeddings("german", k=1.5, b=0.5, avg_len=8.0)
    assert copied(made).embed_documents(["zwei Pakete"]) == made.embed_documents(["zwei Pakete"])
