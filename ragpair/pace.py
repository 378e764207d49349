"""How much goes into one request: as much as keeps the server busy for about two seconds, found out as it answers.

Large requests serve a GPU best: what each one costs beside its texts is paid less often. But a server that takes a
second a text would hold a large one past every timeout, and some refuse what their queue has no room for. So the first
requests are small, each answer tells what the next may hold, and a refusal for size halves it. Work is counted in the
bytes of the texts, since that is what it grows with. No clocks here: replies say how long they took.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ragpair.wire import Reply

Item = tuple[int, str]

_TARGET = 2.0  # seconds of work in one request
_AT_FIRST = 8_192  # bytes: on a CPU a few seconds, on a GPU nothing
# Proxies refuse larger bodies, nginx from 1 MB; and so much text is work enough for any GPU.
_MOST = 400_000
_EACH_TEXT = 64  # what a text costs beside its bytes
_GROWS = 32.0  # a request holds at most so many times what one before it held
_SHRINKS = 0.7  # of what was refused, the next may hold so much
_FORGIVES = 1.01  # with each answer, the size that was once refused grows by this


def load(text: str) -> int:
    """The work that a text is, in bytes; counted, not encoded."""
    return len(text) * (1 if text.isascii() else 3) + _EACH_TEXT


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts that go together.

    Attributes:
        items: Index and text of each.
        load: The work that they are.
    """

    items: Sequence[Item]
    load: int

    def halves(self) -> tuple[Batch, Batch]:
        """Two smaller ones."""
        middle = len(self.items) // 2
        left, right = self.items[:middle], self.items[middle:]
        share = self.load * len(left) // len(self.items)
        return Batch(left, share), Batch(right, self.load - share)


class Pace:
    """What one request may hold, for one server and model. Shared by threads: a lost update does no harm.

    Args:
        most: Texts in one request at most.
        lanes: Servers that work at the same time.
    """

    def __init__(self, most: int, lanes: int = 1) -> None:
        self.most, self._lanes = most, lanes
        self.load = float(_AT_FIRST)
        self._ceiling = float(_MOST)
        self._cost: float | None = None  # seconds a byte

    def answered(self, load: int, reply: Reply) -> None:
        """Learn from the answer to a request of this load."""
        self._ceiling = min(_MOST, self._ceiling * _FORGIVES)
        if load < self.load / 2:
            return  # too small to tell what a full one takes
        cost = reply.seconds / (load * reply.in_flight)
        self._cost = cost if self._cost is None else (self._cost + cost) / 2
        fitting = _TARGET / self._cost if self._cost else _MOST
        self.load = min(max(self.load, _GROWS * load), fitting, self._ceiling)

    def refused(self, load: int, reply: Reply) -> None:
        """Learn that a request of this load was too large for the server's queue, or for a proxy.

        Where others of ours were in the queue, fewer at a time will do, which is the driver's business.
        """
        if reply.in_flight == 1 or reply.status == 413:
            self._ceiling = load * _SHRINKS
            self.load = min(self.load, self._ceiling)

    def batches(self, items: Sequence[Item], beside: int = 0, per_call: int | None = None) -> Iterator[Batch]:
        """The items in requests that are as large as is right when they are asked for.

        Args:
            items: Texts with their indices.
            beside: The work that goes with each text, such as the query of a pair.
            per_call: Texts in one request at most, if the engine takes fewer.
        """
        count = min(self.most, per_call or self.most)
        loads = [load(text) + beside for _, text in items]
        left, start = sum(loads), 0
        while start < len(items):
            # Towards the end, every server should have something to do.
            most = self.load if self._lanes == 1 else min(self.load, max(left / self._lanes, _AT_FIRST))
            end, taken = start, 0
            while end < len(items) and end - start < count and (end == start or taken + loads[end] <= most):
                end, taken = end + 1, taken + loads[end]
            yield Batch(items[start:end], taken)
            start, left = end, left - taken

    def is_full(self, count: int, load: int) -> bool:
        """Whether so many texts are enough for one request, when nobody knows how many more will come."""
        return count >= self.most or load >= self.load


class Chunker:
    """Texts that come one by one, in chunks that are each right for one request."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._texts: list[str] = []
        self._load = 0

    def add(self, text: str) -> list[str] | None:
        """Take a text; the chunk, if it is full now."""
        self._texts.append(text)
        self._load += load(text) if isinstance(text, str) else _EACH_TEXT
        return self.rest() if self._pace.is_full(len(self._texts), self._load) else None

    def rest(self) -> list[str]:
        """What has been taken since the last chunk."""
        chunk, self._texts, self._load = self._texts, [], 0
        return chunk
