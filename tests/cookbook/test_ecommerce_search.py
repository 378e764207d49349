"""Product search: what its four notebooks say must be what they compute."""

from pathlib import Path
from typing import Any

import pytest

from ragpair.testing import FakeServer

from .conftest import Executed


@pytest.fixture(scope="module")
def english(executed: Executed) -> dict[str, Any]:
    """The headline in LangChain, executed once for all tests."""
    return executed("ecommerce_search")


@pytest.fixture(scope="module")
def chinese(executed: Executed) -> dict[str, Any]:
    """The same in Chinese."""
    return executed("ecommerce_search_zh")


@pytest.fixture(scope="module")
def llamaindex(executed: Executed) -> dict[str, Any]:
    """The same in LlamaIndex."""
    return executed("ecommerce_search_llamaindex")


def test_recall_by_meaning_beats_words_unless_the_wrong_text_is_embedded(english: dict[str, Any]) -> None:
    assert 0.87 < english["dense NDCG@10"] < 0.91  # 0.86 from titles alone, and with prices and stock in the text
    assert 0.74 < english["BM25 NDCG@10"] < 0.80
    assert english["BM25 NDCG@10"] < english["hybrid NDCG@10"] < english["dense NDCG@10"]


def test_reranking_does_no_harm_unless_scores_are_joined_to_the_wrong_documents(english: dict[str, Any]) -> None:
    assert english["rerank NDCG@10"] > english["dense NDCG@10"] - 0.01


def test_no_weight_ruins_the_list_unless_the_blend_adds_or_takes_cosines_for_probabilities(
    english: dict[str, Any],
) -> None:
    assert 0.81 < english["blend 64 NDCG@10"] < english["blend 0.5 NDCG@10"] < english["rerank NDCG@10"]
    assert english["weighted sum 0.3 NDCG@10"] < 0.72


def test_what_comes_first_is_cheaper_and_sells_more_unless_a_sign_is_wrong(english: dict[str, Any]) -> None:
    assert english["blend 0.5 price of first, beside none"] < 0.8
    assert english["blend 0.5 sales of first, beside none"] > 1.4
    assert english["blend 0.1 sales of first, beside none"] > 1.05


def test_perfect_relevance_costs_nothing_unless_the_bound_is_broken(english: dict[str, Any]) -> None:
    assert english["perfect relevance, blend 0.5 NDCG@10"] > 0.98


def test_chinese_queries_are_found_unless_they_get_the_prefix_of_passages(chinese: dict[str, Any]) -> None:
    assert 0.86 < chinese["dense NDCG@10"] < 0.90  # 0.83 with it


def test_in_chinese_the_calibration_is_what_saves_the_list(chinese: dict[str, Any]) -> None:
    assert chinese["BM25 NDCG@10"] > 0.72  # 0.1 if clauses are taken for words
    assert 0.80 < chinese["blend 64 NDCG@10"] < chinese["blend 0.5 NDCG@10"] < chinese["dense NDCG@10"] + 0.001
    assert chinese["uncalibrated blend 0.25 NDCG@10"] < 0.4
    assert chinese["Qdrant formula 0.1 NDCG@10"] < 0.6
    assert chinese["blend 0.5 price of first, beside none"] < 0.95
    assert chinese["blend 0.5 sales of first, beside none"] > 1.1


def test_in_chinese_the_path_with_a_reranker_works_too(executed: Executed) -> None:
    found = executed("ecommerce_search_zh", {"RERANK": {"base_url": "local", "scores": "raw"}})
    assert found["dense NDCG@10"] > 0.84  # the reranker itself speaks English alone


def test_with_servers_two_lines_change_unless_cosines_or_widths_are_taken_for_granted(executed: Executed) -> None:
    with FakeServer("vllm") as embed, FakeServer("vllm", task="rerank") as rerank:
        found = executed("ecommerce_search", {"EMBED": {"base_url": embed.url}, "RERANK": {"base_url": rerank.url}})
    assert found["rerank NDCG@10"] > found["dense NDCG@10"] + 0.1  # both see words alone; the reranker sees both sides
    assert found["blend 64 NDCG@10"] > found["rerank NDCG@10"] - 0.06


def test_both_frameworks_agree_unless_metadata_gets_into_the_text(
    english: dict[str, Any], llamaindex: dict[str, Any]
) -> None:
    same = set(english) & set(llamaindex) - {"hybrid NDCG@10"}  # fused by ranks there, by scores here
    assert len(same) == 7
    assert {name: llamaindex[name] for name in same} == pytest.approx({name: english[name] for name in same}, abs=0.002)
    assert english["BM25 NDCG@10"] < llamaindex["hybrid NDCG@10"] < english["dense NDCG@10"]


def test_chorus_in_judged_pools_unless_the_whole_catalogue_is_measured(executed: Executed, labelled: Path) -> None:
    found = executed("ecommerce_search_chorus")
    assert 0.90 < found["dense NDCG@10"] < 0.95
    assert found["BM25 NDCG@10"] < found["dense NDCG@10"] - 0.05  # the other way round in the whole catalogue
    assert found["BM25 NDCG@10"] < found["hybrid NDCG@10"] < found["dense NDCG@10"]
    assert found["rerank NDCG@10"] > found["dense NDCG@10"] - 0.01
    assert 0.38 < found["unjudged in dense first 10"] < 0.48
    assert 0.13 < found["unjudged in BM25 first 10"] < 0.23
    assert 0.80 < found["blend 64 NDCG@10"] < found["blend 0.5 NDCG@10"] < found["rerank NDCG@10"]
    assert 0.55 < found["blend 0.5 price beside none"] < 0.75
