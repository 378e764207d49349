"""The rows of one batch, vectors or scores, whatever happens to it.

One bad text must not cost its batch, and no engine says which one it was: a batch that is refused is halved until the
text is alone, and then named. Before a text is blamed, a harmless one is sent, to see that the request itself is sound.
What is the fault of no text, such as a server that is gone, ends the work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ragpair.dialects.base import Dialect, Served, Task, TooLong
from ragpair.errors import EndpointError, MalformedReply, RagpairError
from ragpair.flows.lengths import fatal, send_shorter
from ragpair.options import OnTooLongDocument
from ragpair.pace import Batch, Item, Pace
from ragpair.retry import OF_A_TEXT, queue_is_full
from ragpair.wire import Call, Flow, Reply, send

Rows = NDArray[Any]
Fault = tuple[str, str]
"""What came in place of a row, and what mends it."""

_HARMLESS = "hello"


@dataclass(slots=True)
class Report:
    """What went wrong with one list of texts.

    Attributes:
        keep: Whether failures are kept, and the rest is done all the same; else the first one is raised.
        failures: By index of the text.
        over: Why nothing more is sent.
        sound: Whether a harmless text was taken; None before one was sent.
    """

    keep: bool = False
    failures: dict[int, RagpairError] = field(default_factory=dict)
    over: EndpointError | None = None
    sound: bool | None = None


@dataclass(frozen=True, slots=True)
class Job(ABC):
    """What embedding and scoring have in common.

    Attributes:
        dialect: How the engine spells it.
        served: What the server said of itself.
        pace: How much one request may hold.
        too_long: What to do with a text over the model's limit.
        extra_body: The user's own fields for every request.
        endpoint: The address, for messages.
        report: Where failures go.
    """

    dialect: Dialect
    served: Served
    pace: Pace
    too_long: OnTooLongDocument
    extra_body: Mapping[str, Any]
    endpoint: str
    report: Report

    task: ClassVar[Task]

    @property
    def divisible(self) -> bool:
        """Whether a batch may be sent in parts."""
        return True

    @abstractmethod
    def call(self, texts: Sequence[str]) -> Flow[Call]:
        """The request for these texts."""

    @abstractmethod
    def read(self, reply: Reply, expected: int) -> tuple[Rows, dict[int, Fault]]:
        """One row a text; and which of them cannot be right."""

    @abstractmethod
    def nothing(self, count: int) -> Rows:
        """Rows for texts that failed."""

    @abstractmethod
    def join(self, parts: Sequence[Rows]) -> Rows:
        """The rows of several batches."""

    @abstractmethod
    def rendered(self, text: str) -> tuple[str, ...]:
        """What of the request is this text's, for the counting of tokens: one string, or a pair."""

    @abstractmethod
    def alone(self, item: Item, long: TooLong, reply: Reply | None) -> Flow[Rows]:
        """The row of one text that is too long, or an error."""

    def complete(self, call: Call, batch: Batch) -> Call:
        """The call with the user's own fields, and with what the driver should know of it."""
        body = {**(call.body or {}), **self.extra_body} if self.extra_body else call.body
        return replace(call, body=body, load=batch.load, divisible=self.divisible and len(batch.items) > 1)


def answer(job: Job, batch: Batch) -> Flow[Rows]:
    """The rows of a batch, in its order."""
    items = batch.items
    if job.report.over is not None:
        return failed(job, items, job.report.over)
    several = job.divisible and len(items) > 1
    reply = None
    long = yield from fatal(job.dialect, job.served, (job.rendered(text) for _, text in items))
    if long is None:
        try:
            call = yield from job.call([text for _, text in items])
            reply = yield from send(job.complete(call, batch))
        except EndpointError as exc:
            job.report.over = exc
            return failed(job, items, exc)
        if reply.ok:
            job.pace.answered(batch.load, reply)
            return _read(job, items, reply)
        long = job.dialect.too_long(reply)
        if long is None and not (several and (yield from _halving_helps(job, batch, reply))):
            refusal = job.dialect.refusal(reply, job.served, job.task)
            if reply.status not in OF_A_TEXT or job.report.sound is False:
                job.report.over = refusal
            return failed(job, items, refusal)
    if several:
        left, right = batch.halves()
        return job.join([(yield from answer(job, left)), (yield from answer(job, right))])
    assert long is not None
    try:
        return (yield from job.alone(items[0], long, reply))
    except EndpointError as exc:
        return failed(job, items, exc)


def _halving_helps(job: Job, batch: Batch, reply: Reply) -> Flow[bool]:
    """Whether a batch was refused for its size, or may have been for one of its texts."""
    if queue_is_full(reply) or reply.status == 413:
        job.pace.refused(batch.load, reply)
        return True
    if reply.status not in OF_A_TEXT:
        return False
    if job.report.sound is None:
        try:
            call = yield from job.call([_HARMLESS])
            probe = yield from send(job.complete(call, Batch([(0, _HARMLESS)], 0)))
            job.report.sound = probe.ok
        except EndpointError:
            job.report.sound = False
    return job.report.sound


def shortened(job: Job, item: Item, limit: int | None, render: Callable[[str], str]) -> Flow[Rows]:
    """The row of the longest beginning of a text that fits; `render` puts around it what counts beside it."""

    def call(short: str) -> Flow[Call]:
        return job.complete((yield from job.call([short])), Batch([(item[0], short)], 0))

    reply = yield from send_shorter(job.dialect, job.served, limit, job.endpoint, item, render, call)
    if not reply.ok:
        raise job.dialect.refusal(reply, job.served, job.task)
    return _read(job, [item], reply)


def _read(job: Job, items: Sequence[Item], reply: Reply) -> Rows:
    """The rows of a reply that is 200."""
    try:
        rows, faults = job.read(reply, len(items))
    except MalformedReply as exc:
        return failed(job, items, exc)
    for number, (what, cure) in faults.items():
        item = items[number]
        failed(
            job,
            [item],
            MalformedReply(
                f"{reply.endpoint}{reply.path} answered {_named([item])} with {what}. {cure}",
                endpoint=reply.endpoint,
                index=item[0],
            ),
        )
        rows[number] = np.nan
    return rows


def failed(job: Job, items: Sequence[Item], error: EndpointError) -> Rows:
    """Rows for texts that cannot be had; or the error, if it is to be raised."""
    error.about(_named(items), items[0][0])
    if not job.report.keep:
        raise error
    job.report.failures.update((index, error) for index, _ in items)
    return job.nothing(len(items))


def _named(items: Sequence[Item]) -> str:
    first, last = items[0][0], items[-1][0]
    return f"text {first}" if first == last else f"texts {first} to {last}"
