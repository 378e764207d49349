"""The cookbook on a real vLLM: the same code, with the line changed that a reader changes.

The embedding model is the embedded one in full precision, so what is recalled must be what the notebook's page shows.
The same server stands behind the rerank route, where it gives cosines: all that the chains do with scores is done, and
the ranking means something, which that of a reranker with random weights would not.
"""

from typing import Any

import pytest

from .launches import StartServer

pytest.importorskip("jupytext", reason='needs the packages of the notebooks: pip install -e ".[cookbook]"')

from ..cookbook.execution import execute, stored

# The numbers of each notebook that the embedding model alone decides.
RECALL = {
    "customer_service": ["right_first_recalled", "ndcg_hybrid"],
    "customer_service_llamaindex": ["right_first_recalled", "ndcg_hybrid"],
    "ecommerce_search": ["dense NDCG@10", "hybrid NDCG@10"],
    "ecommerce_search_llamaindex": ["dense NDCG@10", "hybrid NDCG@10"],
    "evaluate_your_own": ["recall_ndcg", "recall_hit_1", "recall_mrr"],
    "hybrid_and_filters": ["ndcg_en_dense", "ndcg_en_rrf", "recall_int8_x2"],
    "recommend_and_cluster": ["word_alone", "word_with_context", "answers_hit1_cosine"],
}


@pytest.mark.parametrize("name", RECALL)
def test_recall_is_that_of_the_page(server: StartServer, name: str) -> None:
    embed: dict[str, Any] = {"base_url": server("vllm-minilm").base_url}
    _, headline = execute(name, {"EMBED": embed, "RERANK": embed | {"family": None, "scores": "raw"}})
    shown = stored(name).metadata["headline"]
    assert set(headline) == set(shown)
    assert {key: headline[key] for key in RECALL[name]} == pytest.approx(
        {key: shown[key] for key in RECALL[name]}, abs=0.04
    )
