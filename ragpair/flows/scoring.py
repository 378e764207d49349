"""Query and documents to scores: one a document, in the order of the documents. Blank ones get the lowest, unsent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, cast

import numpy as np

from ragpair.dialects.base import NO_SCORE, Scale, ScorePlan, TakesTokens, Task, TooLong
from ragpair.flows.batches import Fault, Job, Rows, answer, shortened
from ragpair.flows.lengths import PAIR_SPECIALS, too_long_error
from ragpair.options import Scores
from ragpair.pace import Batch, Item, load
from ragpair.prompts import Prompt
from ragpair.scores import lowest, to_probability
from ragpair.texts import distinct, is_blank
from ragpair.wire import Call, Flow, Reply, gather, send

# Neighbouring windows of a long document share this part of their length, so that no sentence is lost in a cut.
_OVERLAP = 0.125
_ROUNDING = 1e-3  # by so much a probability may leave 0 to 1
_SMALLEST_WINDOW = 16  # characters; if not even these fit, nothing will
_RESTARTED = (
    "Was another model started at this address since the first request? Make the reranker anew: it looks again."
)


@dataclass(frozen=True, slots=True)
class ScoreJob(Job):
    """How scores are made.

    Attributes:
        plan: The way that the dialect found.
        query: What the documents are judged by.
        scores: "probability", or "raw" for what the server returns.
    """

    plan: ScorePlan
    query: str
    scores: Scores

    task: ClassVar[Task] = "rerank"

    @property
    def divisible(self) -> bool:
        """Listwise rerankers compare all documents with each other."""
        return not self.plan.whole

    def call(self, texts: Sequence[str]) -> Flow[Call]:
        """The request, after the texts were tokenized piece by piece where the authors do so."""
        if not self.plan.constants or self.plan.frame is None:
            return self.dialect.score_call(self.served, self.plan, self.query, texts)
        dialect, frame = cast(TakesTokens, self.dialect), self.plan.frame

        def tokens(prompt: Prompt, text: str) -> Flow[tuple[int, ...]]:
            reply = yield from send(dialect.tokens_call(self.served, prompt.render(frame.harmless(text))))
            if not reply.ok:
                raise dialect.refusal(reply, self.served, "rerank")
            return dialect.read_tokens(reply)

        prompts: list[list[int]] = [[] for _ in texts]
        for piece, constant in zip(frame.pieces, self.plan.constants, strict=True):
            shared = (yield from tokens(piece.prompt, self.query)) if piece.slot == "query" else constant
            for prompt, document in zip(prompts, texts, strict=True):
                own = (yield from tokens(piece.prompt, document)) if piece.slot == "document" else shared
                prompt.extend(own)
        return dialect.score_tokens_call(self.served, self.plan, prompts)

    def read(self, reply: Reply, expected: int) -> tuple[Scale, dict[int, Fault]]:
        """The scores as they came; those that are no numbers, or no probabilities where they should be, are told."""
        values = self.dialect.read_scores(self.plan, reply, expected)
        faults = {int(row): NO_SCORE for row in np.flatnonzero(~np.isfinite(values))}
        if self.plan.served == "probability":
            outside = np.flatnonzero((values < -_ROUNDING) | (values > 1.0 + _ROUNDING))
            faults |= {int(row): (f"{values[row]:g} in place of a probability", _RESTARTED) for row in outside}
        return values, faults

    def nothing(self, count: int) -> Scale:
        """NaN."""
        return np.full(count, np.nan)

    def join(self, parts: Sequence[Rows]) -> Scale:
        """All scores."""
        return np.concatenate(parts)

    def rendered(self, text: str) -> tuple[str, ...]:
        """The whole prompt, or the pair."""
        frame = self.plan.frame
        return (frame.full(self.query, text),) if frame else (self.query, text)

    def alone(self, item: Item, long: TooLong, reply: Reply | None) -> Flow[Scale]:
        """Cut or in windows, if the user chose so."""
        index, text = item
        if self.too_long == "error" or self.plan.whole:
            what = f"the query with document {index}"
            raise too_long_error(self.served, long, reply, what, index, self.endpoint)
        if self.too_long == "windows" and len(text) > _SMALLEST_WINDOW:
            first, second = _windows(text)
            left = yield from answer(self, Batch([(index, first)], 0))
            right = yield from answer(self, Batch([(index, second)], 0))
            return np.maximum(left, right)
        limit = long.limit or self.served.limit
        if limit is not None and self.plan.frame is None:
            limit -= PAIR_SPECIALS
        return (yield from shortened(self, item, limit, lambda short: " ".join(self.rendered(short))))


def score(job: ScoreJob, documents: Sequence[str]) -> Flow[Scale]:
    """One score a document, float64 [n], in the order of the documents. Blank documents get the lowest, unsent.

    Documents that already have a failure in the report are not sent. Scores of documents that failed are NaN.
    """
    plan, failures = job.plan, job.report.failures
    there = [(index, text) for index, text in enumerate(documents) if index not in failures]
    first = distinct((index, text) for index, text in there if not is_blank(text))
    values = yield from _values(job, [(index, text) for text, index in first.items()])
    kind = plan.served
    if job.scores == "probability":
        values, kind = to_probability(values, plan.served, plan.activation), "probability"
    row = {text: number for number, text in enumerate(first)}
    bottom = lowest(kind, values[np.isfinite(values)])
    scores = np.full(len(documents), np.nan)
    for index, text in there:
        place = row.get(text)
        scores[index] = bottom if place is None else values[place]
        if failures and place is not None and first[text] in failures:
            failures[index] = failures[first[text]]
    return scores


def _values(job: ScoreJob, items: Sequence[Item]) -> Flow[Scale]:
    """What the server returns for distinct documents."""
    if not items:
        return np.empty(0)
    if job.plan.whole:
        return (yield from answer(job, Batch(items, sum(load(text) for _, text in items))))
    batches = job.pace.batches(items, load(job.query), job.plan.per_call)
    batch = next(batches)
    if len(batch.items) == len(items):
        return (yield from answer(job, batch))
    flows = (answer(job, one) for one in chain([batch], batches))
    return job.join((yield from gather(flows, job.plan.in_flight)))


def _windows(text: str) -> tuple[str, str]:
    """Two overlapping halves of a text; those that are still too long are halved again."""
    half, shared = len(text) // 2, int(len(text) * _OVERLAP / 2)
    return text[: half + shared], text[half - shared :]
