"""Meanings, recommendations, clusters and the best of 100 answers: on sets that come with the project."""

from .conftest import Executed


def test_a_prompt_where_none_belongs_a_lost_calibration_or_a_blend_without_bound_would_show(executed: Executed) -> None:
    found = executed("recommend_and_cluster")
    assert found["word_alone"] <= 0.5  # both meanings ask with the same vector
    assert 0.85 < found["word_with_context"] < 0.97
    # Sorted by rating alone, 0.56 of the films are alike and the mean rating is 7.6; unblended it is 0.76 and 6.1.
    assert 0.72 < found["films_alike_reranked"] < 0.80
    assert found["films_alike_reranked"] - 0.06 < found["films_alike_blended"] <= found["films_alike_reranked"]
    assert 0.3 < found["rating_blended"] - found["rating_reranked"] < 0.8
    # With "query: " before each review these are 0.69 and 0.57, with Qwen's prompt 0.56 and 0.44.
    assert 0.71 < found["reviews_nearest_same_theme"] < 0.80
    assert 0.60 < found["reviews_rand_index"] < 0.75
    # The embedded reranker gains little, and loses nothing.
    assert 0.35 < found["answers_hit1_cosine"] < 0.45
    assert found["answers_hit1_cosine"] <= found["answers_hit1_reranker"] < 0.52
