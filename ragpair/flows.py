"""Embedding and scoring as conversations: prompt, split, send, check, join. Pure generators.

Duplicates are sent once. One over-long text must not cost its batch, and no engine says which one it was: a refused
batch is halved until the text is alone, and then either named in an error or cut, as the user chose. Only the user's
text is ever cut, never the prompt around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from ragpair.dialects.base import Dialect, Scale, ScorePlan, Served, TakesTokens, TooLong, Vectors, error_text
from ragpair.errors import ConfigurationError, InputTooLong, MalformedReply
from ragpair.prompts import Prompt
from ragpair.scores import Scores, lowest, to_probability
from ragpair.texts import distinct, is_blank, split
from ragpair.wire import Call, Flow, Reply, gather, send

OnTooLong = Literal["error", "truncate"]
OnTooLongDocument = Literal["error", "truncate", "windows"]

# Neighbouring windows of a long document share this part of their length, so that no sentence is lost in a cut.
_OVERLAP = 0.125
_SMALLEST_WINDOW = 16  # characters; if not even these fit, nothing will


@dataclass(frozen=True, slots=True)
class Job:
    """What embedding and scoring have in common.

    Attributes:
        dialect: How the engine spells it.
        served: What the server said of itself.
        batch_size: Texts in one request at most.
        too_long: What to do with a text over the model's limit.
        extra_body: The user's own fields for every request.
        endpoint: The address, for messages.
    """

    dialect: Dialect
    served: Served
    batch_size: int
    too_long: OnTooLongDocument
    extra_body: Mapping[str, Any]
    endpoint: str

    def with_extra(self, call: Call) -> Call:
        """The call with the user's own fields."""
        return replace(call, body={**(call.body or {}), **self.extra_body}) if self.extra_body else call


@dataclass(frozen=True, slots=True)
class Cut:
    """How full vectors become shorter ones: the first `width` numbers, after a layer-norm where the card wants one."""

    width: int
    layer_norm: bool = False


# --- embedding -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EmbedJob(Job):
    """How vectors are made.

    Attributes:
        dimensions: Sent to a server that checks whether the model can be cut.
        cut: Done here, for models that are known to allow it.
    """

    dimensions: int | None = None
    cut: Cut | None = None

    def call(self, texts: Sequence[str], prompt: Prompt) -> Call:
        """The request for these texts. A server that can truncate does, unless it would cut off the prompt's end."""
        truncate = self.too_long == "truncate" and self.dialect.truncates and not prompt.suffix
        rendered = [prompt.render(text) for text in texts]
        return self.with_extra(
            self.dialect.embed_call(self.served, rendered, dimensions=self.dimensions, truncate=truncate)
        )


def embed(job: EmbedJob, texts: Sequence[str], prompt: Prompt) -> Flow[Vectors]:
    """One vector a text, L2-normalised, float32 [n, d], in the order of the texts."""
    first = distinct(texts)
    items = [(index, text) for text, index in first.items()]
    batches = list(split(items, job.batch_size))
    if len(batches) == 1:
        parts = [(yield from _embed_batch(job, batches[0], prompt))]
    else:
        parts = yield from gather([_embed_batch(job, batch, prompt) for batch in batches], job.dialect.in_flight)
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise MalformedReply(
            f"replies held vectors of different widths: {sorted(widths)}. Do replicas serve one model?"
        )
    vectors = _finish(parts[0] if len(parts) == 1 else np.concatenate(parts), job)
    if len(first) == len(texts):
        return vectors
    row = {text: number for number, text in enumerate(first)}
    return vectors[[row[text] for text in texts]]


def _embed_batch(job: EmbedJob, items: Sequence[tuple[int, str]], prompt: Prompt) -> Flow[Vectors]:
    texts = [text for _, text in items]
    reply = None
    long = yield from _fatal(job, ((prompt.render(text),) for text in texts))
    if long is None:
        reply = yield from send(job.call(texts, prompt))
        if reply.ok:
            return job.dialect.read_embeddings(reply, len(items))
        long = job.dialect.too_long(reply)
        if long is None and not (_queue_is_short(reply) and len(items) > 1):
            raise job.dialect.refusal(reply, job.served, "embed")
    if len(items) > 1:  # one is too long, or all are more than the server's queue ever holds
        half = len(items) // 2
        left = yield from _embed_batch(job, items[:half], prompt)
        right = yield from _embed_batch(job, items[half:], prompt)
        return np.concatenate([left, right])
    assert long is not None
    index, _ = items[0]
    if job.too_long == "error":
        raise _too_long(job, long, reply, f"text {index}", index)

    def call(short: str) -> Flow[Call]:
        yield from ()
        return job.call([short], prompt)

    reply = yield from _send_shorter(job, long, items[0], prompt.render, call)
    if reply.ok:
        return job.dialect.read_embeddings(reply, 1)
    raise job.dialect.refusal(reply, job.served, "embed")


def _finish(vectors: Vectors, job: EmbedJob) -> Vectors:
    """Cut and normalise. Vectors that come normalised, as nearly all do, stay as they are, bit for bit."""
    native = vectors.shape[1]
    width = job.cut.width if job.cut else job.dimensions
    if job.cut is not None and job.cut.width < native:
        if job.cut.layer_norm:  # of the normalised vector: the factor between them falls out again below
            vectors = vectors - vectors.mean(axis=1, keepdims=True)
        vectors = np.ascontiguousarray(vectors[:, : job.cut.width])
    if width is not None and vectors.shape[1] != width:
        raise ConfigurationError(
            f"dimensions={width} was asked for, but the vectors of {job.served.model!r} have {vectors.shape[1]}."
        )
    norms = np.linalg.norm(vectors, axis=1)
    if not norms.all():
        raise MalformedReply(f"{job.served.model!r} returned a vector of zeros (text {int(norms.argmin())}).")
    if np.abs(norms - 1.0).max(initial=0.0) > 1e-4:
        vectors = vectors / norms[:, None]
    return vectors


# --- scoring ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScoreJob(Job):
    """How scores are made.

    Attributes:
        plan: The way that the dialect found.
        scores: "probability", or "raw" for what the server returns.
    """

    plan: ScorePlan
    scores: Scores

    def call(self, query: str, documents: Sequence[str]) -> Call:
        """The request for these documents."""
        return self.with_extra(self.dialect.score_call(self.served, self.plan, query, documents))


def score(job: ScoreJob, query: str, documents: Sequence[str]) -> Flow[Scale]:
    """One score a document, float64 [n], in the order of the documents. Blank documents get the lowest, unsent."""
    plan = job.plan
    first = distinct(documents, skip=is_blank)
    items = [(index, text) for text, index in first.items()]
    size = len(items) if plan.whole else min(job.batch_size, plan.per_call or job.batch_size)
    batches = [items] if plan.whole and items else list(split(items, size))
    flows = [_score_batch(job, query, batch) for batch in batches]
    parts = [(yield from flows[0])] if len(flows) == 1 else (yield from gather(flows, plan.in_flight))
    values = np.concatenate(parts) if parts else np.empty(0)
    kind = plan.served
    if job.scores == "probability":
        values, kind = to_probability(values, plan.served, plan.activation), "probability"
    row = {text: number for number, text in enumerate(first)}
    bottom = lowest(kind, values)
    return np.array([bottom if is_blank(text) else values[row[text]] for text in documents], dtype=np.float64)


def _score_batch(job: ScoreJob, query: str, items: Sequence[tuple[int, str]]) -> Flow[Scale]:
    texts = [text for _, text in items]
    frame = job.plan.frame
    reply = None
    long = yield from _fatal(job, ((frame.full(query, text),) if frame else (query, text) for text in texts))
    if long is None:
        reply = yield from send((yield from _score_call(job, query, texts)))
        if reply.ok:
            return job.dialect.read_scores(job.plan, reply, len(items))
        long = job.dialect.too_long(reply)
        if long is None and not (_queue_is_short(reply) and len(items) > 1 and not job.plan.whole):
            raise job.dialect.refusal(reply, job.served, "rerank")
    if len(items) > 1 and not job.plan.whole:
        half = len(items) // 2
        left = yield from _score_batch(job, query, items[:half])
        right = yield from _score_batch(job, query, items[half:])
        return np.concatenate([left, right])
    assert long is not None
    index, text = items[0]
    if job.too_long == "error" or len(items) > 1:
        raise _too_long(job, long, reply, f"the query with document {index}", index)
    if job.too_long == "windows" and len(text) > _SMALLEST_WINDOW:
        first, second = _windows(text)
        left = yield from _score_batch(job, query, [(index, first)])
        right = yield from _score_batch(job, query, [(index, second)])
        return np.maximum(left, right)

    def render(short: str) -> str:
        return frame.full(query, short) if frame else f"{query} {short}"

    reply = yield from _send_shorter(job, long, items[0], render, lambda short: _score_call(job, query, [short]))
    if reply.ok:
        return job.dialect.read_scores(job.plan, reply, 1)
    raise job.dialect.refusal(reply, job.served, "rerank")


def _score_call(job: ScoreJob, query: str, documents: Sequence[str]) -> Flow[Call]:
    """The request, after the texts were tokenized piece by piece where the authors do so."""
    if not job.plan.constants or job.plan.frame is None:
        return job.call(query, documents)
    dialect, frame = cast(TakesTokens, job.dialect), job.plan.frame

    def tokens(prompt: Prompt, text: str) -> Flow[tuple[int, ...]]:
        reply = yield from send(dialect.tokens_call(job.served, prompt.render(frame.harmless(text))))
        if not reply.ok:
            raise dialect.refusal(reply, job.served, "rerank")
        return dialect.read_tokens(reply)

    prompts: list[list[int]] = [[] for _ in documents]
    for piece, constant in zip(frame.pieces, job.plan.constants, strict=True):
        shared = (yield from tokens(piece.prompt, query)) if piece.slot == "query" else constant
        for prompt, document in zip(prompts, documents, strict=True):
            own = (yield from tokens(piece.prompt, document)) if piece.slot == "document" else shared
            prompt.extend(own)
    return job.with_extra(dialect.score_tokens_call(job.served, job.plan, prompts))


def _windows(text: str) -> tuple[str, str]:
    """Two overlapping halves of a text; those that are still too long are halved again."""
    half, shared = len(text) // 2, int(len(text) * _OVERLAP / 2)
    return text[: half + shared], text[half - shared :]


# --- lengths ---------------------------------------------------------------------------------------------------------

# What a tokenizer may add around a pair beyond what it adds around one text.
_PAIR_SPECIALS = 4


def _send_shorter(
    job: Job,
    long: TooLong,
    item: tuple[int, str],
    render: Callable[[str], str],
    call: Callable[[str], Flow[Call]],
) -> Flow[Reply]:
    """The reply to the longest beginning of the text that fits, or nearly; by token counts where the engine counts."""
    limit = long.limit or job.served.limit
    if limit is not None and isinstance(job, ScoreJob) and job.plan.frame is None:
        limit -= _PAIR_SPECIALS
    index, text = item
    keep = len(text)
    tried = False
    while keep > 0:
        short = text[:keep]
        count = yield from _count(job, render(short))
        if count is not None and limit is not None and count > limit:
            keep = min(keep - 1, keep * limit // count)
            continue
        if tried or keep < len(text):
            reply = yield from send((yield from call(short)))
            if job.dialect.too_long(reply) is None:
                return reply
        tried = True
        keep = keep * 4 // 5
    raise InputTooLong(
        f"{job.served.model!r} has no room for any of text {index} beside the prompt and the query (limit: {limit} "
        "tokens).",
        endpoint=job.endpoint,
        index=index,
        limit=limit,
    )


def _count(job: Job, text: str) -> Flow[int | None]:
    call = job.dialect.count_call(job.served, text)
    if call is None:
        return None
    reply = yield from send(call)
    return job.dialect.read_count(reply) if reply.ok else None


def _queue_is_short(reply: Reply) -> bool:
    """Whether vLLM or SGLang refused a batch because their queue, where each text counts, would never hold it."""
    return reply.status == 503 and any(
        words in reply.body for words in (b"cannot accept new requests", b"queue is full")
    )


def _fatal(job: Job, inputs: Iterable[tuple[str, ...]]) -> Flow[TooLong | None]:
    """The first input, a text or a pair, that would kill the server: counted before it is sent, if it may be so long.

    The inputs are made only for a server that has such a length. A pair has as many special tokens as its texts have
    alone, and no text has more tokens than bytes and special tokens.
    """
    fatal = job.served.fatal
    if fatal is None:
        return None
    for texts in inputs:
        if sum(len(text.encode()) + _PAIR_SPECIALS for text in texts) < fatal:
            continue
        count = 0
        for text in texts:
            count += (yield from _count(job, text)) or 0
        if count >= fatal:
            return TooLong(count, job.served.limit)
    return None


def _too_long(job: Job, long: TooLong, reply: Reply | None, what: str, index: int) -> InputTooLong:
    limit = long.limit or job.served.limit
    has = f"has {long.length} tokens" if long.length else "has more tokens than fit"
    takes = f"; {job.served.model!r} takes {limit}" if limit else ""
    said = (
        f"{reply.endpoint} said: {error_text(reply)}" if reply else "it was not sent, since the server would die of it"
    )
    return InputTooLong(
        f"{what} {has}{takes} ({said}). Split it into passages, or pass too_long='truncate' to keep its beginning.",
        endpoint=reply.endpoint if reply else job.endpoint,
        index=index,
        length=long.length,
        limit=limit,
    )
