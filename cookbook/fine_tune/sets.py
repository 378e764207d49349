"""What is trained on and what is measured: one set in domain, in two halves, and two out of domain.

In domain is banking77 as an FAQ: 77 entries, each the intent in words and one question. Of 62 of them, up to 40
questions each are in the training; the other 15 stand for what is written into the FAQ later. What is measured are
questions of the test part, of both kinds of entries, among all 77.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pytrec_eval
from cookbook_data import banking

from ragpair import Embedder
from ragpair.demo import helpdesk

FETCH_K = 30
Rankings = dict[str, list[str]]  # of each query the ids of documents, best first


@dataclass(frozen=True)
class Task:
    """Queries with graded documents."""

    documents: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    judged_only: bool = False  # rank those that were judged for the query, since most are judged for none


@dataclass(frozen=True)
class Bank:
    """banking77, cut as this notebook needs it."""

    known: dict[str, str]  # the entries that there are when the training runs
    train: list[tuple[str, str]]  # question and the entry that answers it
    dev: list[tuple[str, str]]
    later: list[tuple[str, str]]  # five questions for each of the other entries, in no training
    test_known: Task
    test_new: Task


def bank(per_intent: int = 40, dev: int = 2, test: int = 10) -> Bank:
    """Of each intent one question for the entry, some to train on, and some to watch the training with."""
    data = banking.load()
    of: dict[str, list[str]] = defaultdict(list)
    asked: dict[str, list[str]] = defaultdict(list)
    for question in data.test:
        asked[question.intent].append(question.text)
    tested = {_plain(question.text) for question in data.test}
    for question in data.train:
        if _plain(question.text) not in tested:  # a few are in both parts, but for a comma
            of[question.intent].append(question.text)
    entries = {intent: f"{banking.title(intent)}\n{questions[0]}" for intent, questions in sorted(of.items())}
    new = set(list(entries)[::5][:15])
    known = {intent: text for intent, text in entries.items() if intent not in new}

    def questions(intents: Iterable[str], begin: int, count: int) -> list[tuple[str, str]]:
        return [(text, intent) for intent in intents for text in of[intent][begin : begin + count]]

    def measured(intents: set[str]) -> Task:
        queries = {
            f"{intent}/{i}": text
            for intent in entries
            if intent in intents
            for i, text in enumerate(asked[intent][:test])
        }
        return Task(entries, queries, {query: {query.split("/")[0]: 1} for query in queries})

    return Bank(
        known,
        train=questions(known, 1 + dev, per_intent),
        dev=questions(known, 1, dev),
        later=questions(sorted(new), 1, 5),
        test_known=measured(set(known)),
        test_new=measured(new),
    )


def help_desk() -> Task:
    """The English help desk that comes with ragpair: another shop, other words, whole answers."""
    entries, questions = helpdesk.load("en")
    answered = [question for question in questions if question.answer]
    return Task(
        {entry.id: entry.text for entry in entries},
        {f"q{i}": question.text for i, question in enumerate(answered)},
        {f"q{i}": {str(question.answer): 1} for i, question in enumerate(answered)},
    )


def electronics() -> Task:
    """Product search: short queries, titles of products, people's grades from 0 to 3."""
    from cookbook_data import chorus

    shop = chorus.load()
    rated = [query for query, grades in shop.qrels.items() if any(grades.values())]
    qrels = {query: shop.qrels[query] for query in rated[::2]}  # half of them are enough
    judged = {product for grades in qrels.values() for product in grades}
    return Task(
        {product.id: product.title for product in shop.products if product.id in judged},
        {query: shop.queries[query] for query in qrels},
        qrels,
        judged_only=True,
    )


def recall(task: Task, embedder: Embedder, fetch_k: int = FETCH_K) -> Rankings:
    """The candidates of each query, nearest first."""
    ids = list(task.documents)
    documents = embedder.embed_documents(list(task.documents.values()))
    queries = embedder.embed_queries(list(task.queries.values()))
    found = {}
    for query, similarity in zip(task.queries, queries @ documents.T, strict=True):
        order = [ids[i] for i in np.argsort(-similarity, kind="stable")]
        judged = task.qrels[query]
        found[query] = [id for id in order if id in judged] if task.judged_only else order[:fetch_k]
    return found


def rerank(task: Task, candidates: Rankings, score: Callable[[str, list[str]], np.ndarray]) -> Rankings:
    """The same candidates in the order of `score(query, documents)`."""
    ranked = {}
    for query, ids in candidates.items():
        scores = score(task.queries[query], [task.documents[id] for id in ids])
        ranked[query] = [ids[i] for i in np.argsort(-np.asarray(scores), kind="stable")]
    return ranked


def ndcg(task: Task, rankings: Mapping[str, list[str]]) -> np.ndarray:
    """NDCG@10 of each query."""
    run = {query: {id: 1 / (1 + rank) for rank, id in enumerate(ids)} for query, ids in rankings.items()}
    found = pytrec_eval.RelevanceEvaluator(task.qrels, {"ndcg_cut_10"}).evaluate(run)
    return np.array([found[query]["ndcg_cut_10"] for query in task.queries])


def _plain(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))
