"""How many requests may be in flight: few at first, more with each answer, half when the server says it is busy.

That is how TCP finds its pace, and for the same reason: nobody knows what a server takes until it is asked, and asking
for too much costs everybody. A server that computes one request after another is as busy with two as with eight; what
more than two gain on others shows within a few answers.
"""

from __future__ import annotations

import asyncio
import threading
import time

from ragpair.retry import BUSY, Lost
from ragpair.wire import Call, Reply

_AT_FIRST = 4


class Permits:
    """Counts permits on a semaphore that starts with `_AT_FIRST`; a driver enters by acquiring it, and leaves here.

    Args:
        places: A semaphore of the driver's kind.
        most: Permits at most.
    """

    def __init__(self, places: threading.Semaphore | asyncio.Semaphore, most: int) -> None:
        self._places, self._most = places, most
        self._lock = threading.Lock()
        self._wanted = float(min(_AT_FIRST, most))
        self._given = int(self._wanted)  # permits that exist, inside or free
        self._halved_at = 0.0
        self._rushing = True

    @property
    def now(self) -> int:
        """Requests that may be in flight at the moment."""
        return int(self._wanted)

    def leave(self) -> None:
        """Give a permit back, unless there are more than there should be."""
        with self._lock:
            if self._given > int(self._wanted):
                self._given -= 1
                return
        self._places.release()

    def heed(self, call: Call, outcome: Reply | Lost, sent: float) -> None:
        """Learn from what a request brought that was sent at this time of the monotonic clock."""
        if isinstance(outcome, Reply) and outcome.ok:
            if call.body is not None:  # questions about engine and model are no work
                self.succeeded()
        elif isinstance(outcome, Lost) or outcome.status in BUSY:
            self.busy(sent, time.monotonic())

    def succeeded(self) -> None:
        """An answer came: one permit more, or after the server was once busy, one more a round."""
        if self._wanted >= self._most:
            return
        with self._lock:
            self._wanted = min(self._most, self._wanted + (1.0 if self._rushing else 1.0 / self._wanted))
            more = int(self._wanted) - self._given
            self._given += max(0, more)
        for _ in range(more):
            self._places.release()

    def busy(self, sent: float, now: float) -> None:
        """The server was too busy for a request: half as many from here on. Requests sent together count once."""
        with self._lock:
            if sent >= self._halved_at:
                self._wanted, self._halved_at, self._rushing = max(1.0, self._wanted / 2), now, False


def at_first(most: int) -> int:
    """What the semaphore starts with."""
    return min(_AT_FIRST, most)
