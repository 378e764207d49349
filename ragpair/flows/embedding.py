"""Texts to vectors: duplicates are sent once, batches at the same time, rows come back in the order of the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import ClassVar

import numpy as np

from ragpair.dialects.base import OVERFLOWS, Task, TooLong, Vectors
from ragpair.errors import ConfigurationError, MalformedReply, RagpairError
from ragpair.flows.batches import Fault, Job, Rows, answer, shortened
from ragpair.flows.lengths import too_long_error
from ragpair.pace import Batch, Item, load
from ragpair.prompts import Prompt
from ragpair.texts import distinct
from ragpair.wire import Call, Flow, Reply, gather

_NORMALISED = 2e-4  # of the square of the length, for what servers compute in half precision
_ZEROS = (
    "a vector of zeros",
    "The engine failed and does not say so: look at its log, and embed this text alone to see whether it is the text.",
)
_NO_NUMBERS = ("a vector that holds NaN, infinity or null", OVERFLOWS)


@dataclass(frozen=True, slots=True)
class Cut:
    """How full vectors become shorter ones: the first `width` numbers, after a layer-norm where the card wants one."""

    width: int
    layer_norm: bool = False


@dataclass(frozen=True, slots=True)
class EmbedJob(Job):
    """How vectors are made.

    Attributes:
        prompt: What goes around each text.
        dimensions: Sent to a server that checks whether the model can be cut.
        cut: Done here, for models that are known to allow it.
    """

    prompt: Prompt = field(default_factory=Prompt)
    dimensions: int | None = None
    cut: Cut | None = None

    task: ClassVar[Task] = "embed"

    def call(self, texts: Sequence[str]) -> Flow[Call]:
        """A server that can truncate does, unless it would cut off the prompt's end."""
        yield from ()
        truncate = self.too_long == "truncate" and self.dialect.truncates and not self.prompt.suffix
        rendered = [self.prompt.render(text) for text in texts]
        return self.dialect.embed_call(self.served, rendered, dimensions=self.dimensions, truncate=truncate)

    def read(self, reply: Reply, expected: int) -> tuple[Vectors, dict[int, Fault]]:
        """The vectors as users want them, cut and normalised; those that are none are told.

        All is read off the sums of squares: they are not finite if a number is not, and no text has a vector of
        zeros. Vectors that come normalised, as nearly all do, stay as they are, bit for bit.
        """
        vectors = self.dialect.read_embeddings(reply, expected)
        squares = _squares(vectors)
        faults = {} if _are_ones(squares) else _faults(squares)
        if self.cut is not None and self.cut.width < vectors.shape[1]:
            if self.cut.layer_norm:  # of the normalised vector: the factor between them falls out again below
                vectors = vectors - vectors.mean(axis=1, keepdims=True)
            vectors = np.ascontiguousarray(vectors[:, : self.cut.width])
            squares = _squares(vectors)
        width = self.cut.width if self.cut else self.dimensions
        if width is not None and vectors.shape[1] != width:
            raise ConfigurationError(
                f"dimensions={width} was asked for, but the vectors of {self.served.model!r} have {vectors.shape[1]}."
            )
        if not _are_ones(squares):
            with np.errstate(all="ignore"):  # rows with faults
                lengths: Vectors = np.sqrt(squares)
                vectors = vectors / lengths[:, None]
        return vectors, faults

    def nothing(self, count: int) -> Vectors:
        """Rows whose width nobody knows."""
        return np.empty((count, 0), np.float32)

    def join(self, parts: Sequence[Rows]) -> Vectors:
        """All rows, NaN for those without a width."""
        widths = {part.shape[1] for part in parts} - {0}
        if len(widths) > 1:
            raise MalformedReply(
                f"replies held vectors of different widths: {sorted(widths)}. Do replicas serve one model?",
                endpoint=self.endpoint,
            )
        width = max(widths, default=0)
        rows = [part if part.shape[1] == width else np.full((len(part), width), np.nan, np.float32) for part in parts]
        joined: Vectors = rows[0] if len(rows) == 1 else np.concatenate(rows)
        return joined

    def rendered(self, text: str) -> tuple[str, ...]:
        """The text in its prompt."""
        return (self.prompt.render(text),)

    def alone(self, item: Item, long: TooLong, reply: Reply | None) -> Flow[Vectors]:
        """Cut, if the user chose so."""
        index, _ = item
        if self.too_long == "error":
            raise too_long_error(self.served, long, reply, f"text {index}", index, self.endpoint)
        return (yield from shortened(self, item, long.limit or self.served.limit, self.prompt.render))


def embed(job: EmbedJob, texts: Sequence[str]) -> Flow[Vectors]:
    """One vector a text, L2-normalised, float32 [n, d], in the order of the texts.

    Texts that already have a failure in the report are not sent. Rows of texts that failed are NaN.
    """
    failures = job.report.failures
    first = distinct((index, text) for index, text in enumerate(texts) if index not in failures)
    items = [(index, text) for text, index in first.items()]
    if not items:
        return np.full((len(texts), job.cut.width if job.cut else 0), np.nan, np.float32)
    batches = job.pace.batches(items)
    batch = next(batches)
    if len(batch.items) == len(items):
        rows = yield from answer(job, batch)
    else:
        flows = (answer(job, one) for one in chain([batch], batches))
        rows = job.join((yield from gather(flows, job.dialect.in_flight)))
    return rows if len(first) == len(texts) else _spread(rows, first, list(enumerate(texts)), failures)


def embed_chunk(job: EmbedJob, start: int, texts: Sequence[str]) -> Flow[tuple[int, Vectors, dict[int, RagpairError]]]:
    """The vectors of a piece of a longer list in one batch: where it starts, its rows, and its failures by index."""
    failures = job.report.failures
    given = list(enumerate(texts, start))
    first = distinct((index, text) for index, text in given if index not in failures)
    items = [(index, text) for text, index in first.items()]
    batch = Batch(items, sum(load(text) for text in first))
    vectors = (yield from answer(job, batch)) if items else job.nothing(0)
    if len(first) < len(texts):
        vectors = _spread(vectors, first, given, failures)
    return start, vectors, {index: failures.pop(index) for index, _ in given if index in failures}


def _spread(
    vectors: Vectors, first: dict[str, int], given: Sequence[Item], failures: dict[int, RagpairError]
) -> Vectors:
    """The rows of distinct texts, for all places where these stand."""
    row = {text: number for number, text in enumerate(first)}
    spread = np.full((len(given), vectors.shape[1]), np.nan, np.float32)
    for place, (index, text) in enumerate(given):
        if text in row and index not in failures:
            spread[place] = vectors[row[text]]
            if first[text] in failures:
                failures[index] = failures[first[text]]
    return spread


def _squares(vectors: Vectors) -> Vectors:
    if len(vectors) == 1:  # a query, in a third of the time
        return np.array([vectors[0] @ vectors[0]], np.float32)
    squares: Vectors = np.einsum("ij,ij->i", vectors, vectors)
    return squares


def _are_ones(squares: Vectors) -> bool:
    return bool(np.abs(squares - 1.0).max(initial=0.0) <= _NORMALISED)  # not if one is NaN


def _faults(squares: Vectors) -> dict[int, Fault]:
    bad = np.flatnonzero(~np.isfinite(squares) | (squares == 0.0))
    return {int(row): _ZEROS if squares[row] == 0.0 else _NO_NUMBERS for row in bad}
