"""Compares a served cross-encoder with sentence-transformers' own scores, and records that in run.json.

vllm serve fine_tune/model --runner pooling --served-model-name bank-reranker --port 8001
python -m fine_tune.check http://localhost:8001
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from fine_tune import sets, train
from sentence_transformers.cross_encoder import CrossEncoder

from ragpair import Embedder, Reranker


def check(base_url: str, model: CrossEncoder) -> dict[str, Any]:
    """Forty questions with five candidates each: the largest difference of a score; and NDCG@10 of the help desk."""
    bank, desk, embedder = sets.bank().test_known, sets.help_desk(), Embedder("local", too_long="truncate")
    candidates = sets.recall(bank, embedder, 5)
    reranker = Reranker(base_url)
    differences = []
    for query in [*bank.queries][::16]:
        documents = [bank.documents[id] for id in candidates[query]]
        own = model.predict([(bank.queries[query], document) for document in documents], show_progress_bar=False)
        differences.append(np.abs(reranker.score(bank.queries[query], documents) - own))
    served = sets.ndcg(desk, sets.rerank(desk, sets.recall(desk, embedder), reranker.score)).mean()
    recorded = np.mean(json.loads(train.RUN.read_text(encoding="utf-8"))["ndcg@10"]["fine-tuned"]["help desk"])
    found = reranker.describe()
    return {
        "engine": f"{found['engine']} {found['version']}",
        "route": found["route"],
        "score_kind": found["score_kind"],
        "pairs": 5 * len(differences),
        "largest_difference": float(np.max(differences)),
        "help desk, NDCG@10": round(float(served), 4),
        "help desk, NDCG@10 by sentence-transformers": round(float(recorded), 4),
    }


if __name__ == "__main__":
    run = json.loads(train.RUN.read_text(encoding="utf-8"))
    run["served"] = check(sys.argv[1], CrossEncoder(str(train.MODEL), device="cpu"))
    train.write(run)
    print(run["served"])
