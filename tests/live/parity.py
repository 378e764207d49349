"""`python -m tests.live.parity`: are the scores and vectors of real engines, through ragpair, those of the model cards?

Each row of the table is one server and one card: the same texts go through ragpair to the server, and through the
card's own recipe in transformers (float32) on the same weights. First the reference computes everything, then the
servers start one after the other. The exit status is 1 if a row misses its bound.

    python -m tests.live.parity                           prints the table
    python -m tests.live.parity --write docs/parity.md    writes it, with versions and notes
    python -m tests.live.parity --only sglang             only the servers whose name holds this
"""

import argparse
import datetime
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ragpair import ConfigurationError, Embedder, Reranker

from . import parity_cards as cards
from .launches import start
from .parity_cards import Array, EmbeddingCard, RerankerCard
from .parity_table import SAME_SCORE, SAME_VECTOR, TIE, Outcome, Row, line, page, table
from .parity_texts import QUERIES
from .reference import Request, references
from .servers import Server

CONTROL_QUERIES, CONTROL_TEXTS = 2, 60  # a mistake shows in a few of them


def scores(launch: str, card: RerankerCard, bound: float = SAME_SCORE, **more: Any) -> Row:
    return Row(launch, card, bound, **more)


def vectors(launch: str, card: EmbeddingCard, bound: float = SAME_VECTOR, **more: Any) -> Row:
    return Row(launch, card, bound, **more)


LLAMACPP_XLMR = (
    "llama.cpp computes this model less exactly (why is not known; its tanh form of GELU explains little of it), so "
    "it is held to {bound:g} and to {order:.0%} of the order. The GGUF writer of these tests leaves out "
    "SentencePiece's table of normalisations, so only the pairs are compared that it would not change (no full-width "
    "punctuation, no newlines, no doubled or trailing blanks)."
)
LLAMACPP_QWEN3 = (
    "llama.cpp writes the prompt itself, from the template in the GGUF file, with the default instruction only."
)
LOOSE, MOSTLY = 5e-3, 0.99  # what llama.cpp's cross-encoders are held to

ROWS = [
    vectors("vllm-minilm", cards.MINILM),
    vectors("vllm-e5", cards.E5),
    vectors("vllm-bge", cards.BGE),
    vectors("vllm-qwen3-emb", cards.QWEN3_EMBEDDING),
    scores("vllm-xlmr-rr-zh", cards.XLMR),
    scores("vllm-bert-ce-zh", cards.BERT),
    scores("vllm-qwen3-rr", cards.QWEN3),
    scores("vllm-qwen3-rr-seqcls", cards.QWEN3),
    scores("vllm-gemma-rr", cards.GEMMA),
    scores("vllm-mxbai-rr", cards.MXBAI),
    vectors("sglang-minilm", cards.MINILM, refused="pools"),
    vectors("sglang-e5", cards.E5, refused="pools"),
    vectors("sglang-bge", cards.BGE),
    vectors("sglang-qwen3-emb", cards.QWEN3_EMBEDDING),
    scores("sglang-xlmr-rr-zh", cards.XLMR),
    scores("sglang-bert-ce-zh", cards.BERT),
    scores("sglang-qwen3-rr", cards.QWEN3),
    vectors("llamacpp-minilm", cards.MINILM),
    scores(
        "llamacpp-xlmr-rr-zh",
        cards.XLMR,
        LOOSE,
        order=MOSTLY,
        plain=True,
        note=LLAMACPP_XLMR.format(bound=LOOSE, order=MOSTLY),
    ),
    scores("llamacpp-qwen3-rr", replace(cards.QWEN3, own_instruction=False), note=LLAMACPP_QWEN3),
]


# --- rerankers -------------------------------------------------------------------------------------------------------


class ScoreRun:
    """The pairs of a row, what the reference says of them, and what the server says."""

    def __init__(self, row: Row, card: RerankerCard) -> None:
        self.row = row
        self.card = card
        self.whole = card.in_one_piece() if card.pieces else card
        self.candidates = [card.documents(query) for query in QUERIES]
        if row.plain:
            self.candidates = [
                [text for text in some if _is_plain(text) and _is_plain(query)]
                for query, some in zip(QUERIES, self.candidates, strict=True)
            ]

    def requests(self) -> list[Request]:
        few = [some if n < CONTROL_QUERIES else [] for n, some in enumerate(self.candidates)]
        return [
            self.card.request(self.candidates),
            self.whole.request(self.candidates),
            self.card.request(few),
            self.card.wrong_request(few),
        ]

    def outcome(self, server: Server, answers: Sequence[list[Any]]) -> Outcome:
        expected, in_one_text, right, wrong = map(self.card.probabilities, answers)
        reranker = Reranker(server.base_url, family=self.card.family)
        got = np.concatenate(
            [
                reranker.score(query, some, instruction=told)
                for told in self.card.instructions()
                for query, some in zip(QUERIES, self.candidates, strict=True)
            ]
        )
        lengths = [len(some) for _ in self.card.instructions() for some in self.candidates]
        outcome = Outcome(
            self.row,
            _with_instruction(str(reranker.describe()["route"]), self.card.own_instruction),
            len(got),
            difference=float(np.abs(got - expected).max()),
            order=_order(expected, got, lengths),
            mistake=float(np.abs(right - wrong).max()),
        )
        assert outcome.difference is not None
        assert outcome.order is not None
        outcome.passed = outcome.difference <= self.row.bound and outcome.order[0] >= self.row.order * outcome.order[1]
        apart = np.abs(expected - in_one_text) > TIE
        if apart.any():
            outcome.notes.append(
                "The authors' code tokenizes this prompt piece by piece, and so does ragpair, by the server's own "
                f"tokenizer. Sent as one text, {apart.sum()} of {len(got)} pairs would have a token that reaches over "
                "a seam (mostly punctuation and the newline after it), and scores that differ by up to "
                f"{np.abs(expected - in_one_text).max():.2f}: the weights are random here, so the size of that says "
                "nothing of the trained model."
            )
        return outcome


def _order(expected: Array, got: Array, lengths: Sequence[int]) -> tuple[int, int]:
    right = total = start = 0
    for length in lengths:
        here = slice(start, start + length)
        gaps = np.subtract.outer(expected[here], expected[here])
        ordered = gaps > TIE
        total += int(ordered.sum())
        right += int((np.subtract.outer(got[here], got[here])[ordered] > 0).sum())
        start += length
    return right, total


# --- embedders -------------------------------------------------------------------------------------------------------


class VectorRun:
    """The same for texts."""

    def __init__(self, row: Row, card: EmbeddingCard) -> None:
        self.row = row
        self.card = card
        self.texts = card.texts()

    def requests(self) -> list[Request]:
        few = self.texts[:CONTROL_TEXTS]
        return [self.card.request(self.texts), self.card.request(few), self.card.wrong_request(few)]

    def outcome(self, server: Server, answers: Sequence[list[Any]]) -> Outcome:
        expected, right, wrong = map(np.asarray, answers)
        sides = "queries and documents"
        outcome = Outcome(
            self.row,
            _with_instruction(sides, self.card.own_instruction),
            len(expected),
            mistake=float(_cosines(right, wrong).min()),
        )
        if not self.row.refused:
            outcome.cosine = float(_cosines(self._embed(server, self.card.family), expected).min())
            outcome.passed = outcome.cosine >= self.row.bound
            return outcome
        try:
            self._embed(server, self.card.family)
        except ConfigurationError as error:
            outcome.compared = "refused, as it must be"
            outcome.passed = self.row.refused in str(error)
            unguarded = _cosines(self._embed(server, None), expected)
            outcome.notes.append(
                f"Refused with: “{_tail(str(error), server)}”. The server's vectors, asked for with `family=None` "
                f"and the card's own prompts, have cosines of {unguarded.min():.3f} to {unguarded.max():.3f}, "
                f"{np.median(unguarded):.3f} in the middle, to the right ones."
            )
        return outcome

    def _embed(self, server: Server, family: str | None) -> Array:
        card = self.card
        embedder = (
            Embedder(server.base_url, family=family)
            if family
            else Embedder(server.base_url, family=None, query_prompt=card.query, document_prompt=card.document)
        )
        parts = [embedder.embed_queries(self.texts, instruction=told) for told in card.instructions()]
        return np.concatenate([*parts, embedder.embed_documents(self.texts)])


def _cosines(a: Array, b: Array) -> Array:
    return np.asarray((a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)))


# --- the whole -------------------------------------------------------------------------------------------------------


def run(rows: Sequence[Row]) -> list[Outcome]:
    """All rows; each server is started once."""
    runs = [ScoreRun(row, row.card) if isinstance(row.card, RerankerCard) else VectorRun(row, row.card) for row in rows]
    _say("the reference computes")
    requests = [one.requests() for one in runs]
    known: list[Request] = []  # rows of one card share their reference
    for request in (request for some in requests for request in some):
        if request not in known:
            known.append(request)
    answers = references(known)
    outcomes = []
    for name, some in groupby(zip(runs, requests, strict=True), key=lambda one: one[0].row.launch):
        _say(f"{name} starts")
        with start(name) as server:
            _say(f"{name} answers, after {server.started_in:.0f} s")
            for one, asked in some:
                outcomes.append(one.outcome(server, [answers[known.index(request)] for request in asked]))
                _say(line(outcomes[-1]))
    return outcomes


def _say(text: str) -> None:
    sys.stderr.write(f"{datetime.datetime.now():%H:%M:%S} {text}\n")


def _is_plain(text: str) -> bool:
    return unicodedata.normalize("NFKC", text) == text and " ".join(text.split()) == text


def _with_instruction(text: str, own: bool) -> str:
    return f"{text}; default and own instruction" if own else text


def _tail(message: str, server: Server) -> str:
    return message.replace(server.base_url, "the server").splitlines()[0].rstrip(".")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page, besides printing the table")
    parser.add_argument("--only", default="", metavar="NAME", help="only the servers whose name holds this")
    options = parser.parse_args()
    rows = [row for row in ROWS if options.only in row.launch]
    if not rows:
        parser.error(f"no server is called like {options.only!r}")
    outcomes = run(rows)
    sys.stdout.write(table(outcomes))
    if options.write:
        options.write.write_text(page(outcomes), encoding="utf-8")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
