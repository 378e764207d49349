"""Which replica is asked next, judged by how they behaved: no background thread, no extra requests.

The one that should answer soonest is asked: what it has outstanding, times what it has lately needed for such work.
What it has needed is forgotten with time, so that one that was slow gets another chance. One that failed rests, longer
each time; then a single request finds out whether it is well. One that was away may have come back as another server,
so it is first asked who it is.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ragpair.retry import BUSY, Lost, retry_after
from ragpair.wire import Call, Flow, Reply

_REST = 0.5  # seconds after the first failure; doubles with each
_LONGEST_REST = 30.0
_TRIAL = 5.0  # seconds for which others leave one alone that is being tried
_HALF_LIFE = 15.0  # seconds in which half of a bad memory fades
_EACH_REQUEST = 4096  # what a request costs beside its load, so that small ones can be compared with large ones
_SMOOTHING = 0.3


@dataclass(slots=True)
class Replica:
    """One server, and what is remembered of it.

    Attributes:
        url: Base URL.
        requests: Outstanding at the moment.
        load: Of those requests together.
        cost: Seconds for one unit of load, smoothed; None before the first answer.
        measured: When, by the monotonic clock.
        failures: Since the last answer.
        rests_until: Left alone until then.
        known: Whether it has been found to serve the same model as the others.
    """

    url: str
    requests: int = 0
    load: int = 0
    cost: float | None = None
    measured: float = 0.0
    failures: int = 0
    rests_until: float = 0.0
    known: bool = True


class Replicas:
    """The servers of one model, shared by all that ask them. Thread-safe; a forked child starts without memories."""

    def __init__(self, base_urls: tuple[str, ...]) -> None:
        self._base_urls = base_urls
        self.check: Callable[[str], Flow[bool]] | None = None
        """Asks a replica whether it belongs here; set when there is something to compare it with."""
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._all = {url: Replica(url) for url in self._base_urls}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._base_urls)

    def choose(self, call: Call, failed: set[str]) -> Replica:
        """The replica to ask: not one that failed this very call, if there is another."""
        if self._pid != os.getpid():
            self._begin()
        if call.replica is not None:
            return self._all[call.replica]
        if len(self._all) == 1:
            return next(iter(self._all.values()))
        now = time.monotonic()
        with self._lock:
            fresh = [one for one in self._all.values() if one.url not in failed] or list(self._all.values())
            awake = [one for one in fresh if one.rests_until <= now]
            if not awake:
                return min(fresh, key=lambda one: one.rests_until)
            self._turn += 1  # equals take turns
            start = self._turn % len(awake)
            best = min((one.cost for one in awake if one.cost is not None), default=0.0)
            chosen = min(awake[start:] + awake[:start], key=lambda one: self._expected(one, call, best, now))
            if chosen.failures:
                chosen.rests_until = now + _TRIAL
            return chosen

    def _expected(self, one: Replica, call: Call, best: float, now: float) -> tuple[float, int]:
        cost = best
        if one.cost is not None:
            cost += (one.cost - best) * _faded(now - one.measured)
        return cost * (one.load + call.load + _EACH_REQUEST * (one.requests + 1)), one.requests

    def must_check(self, one: Replica, call: Call) -> bool:
        """Whether the replica must first be asked who it is."""
        return not one.known and call.replica is None and self.check is not None

    @contextmanager
    def asking(self, one: Replica, call: Call) -> Iterator[None]:
        """Counts the call as outstanding."""
        with self._lock:
            one.requests += 1
            one.load += call.load
        try:
            yield
        finally:
            with self._lock:
                one.requests -= 1
                one.load -= call.load

    def note(self, one: Replica, call: Call, outcome: Reply | Lost, load: int) -> None:
        """Remember how it went. `load` is what was outstanding when the call was sent, the call included."""
        if isinstance(outcome, Reply) and outcome.status < 500 and outcome.status not in BUSY:
            one.failures, one.rests_until = 0, 0.0
            if call.load:
                cost = outcome.seconds / (load + _EACH_REQUEST * outcome.in_flight)
                now = time.monotonic()
                kept = (1 - _SMOOTHING) * _faded(now - one.measured)
                one.cost = cost if one.cost is None else cost + kept * (one.cost - cost)
                one.measured = now
            return
        if isinstance(outcome, Reply) and outcome.status == 501:
            return
        asked = retry_after(outcome) if isinstance(outcome, Reply) else None
        self.rest(one, asked)
        if isinstance(outcome, Lost) and outcome.how in ("refused", "dropped"):
            one.known = False

    def rest(self, one: Replica, seconds: float | None = None) -> None:
        """Leave it alone for a while."""
        one.failures += 1
        usual = min(_LONGEST_REST, _REST * 2.0 ** min(one.failures - 1, 10))
        one.rests_until = time.monotonic() + (usual if seconds is None else seconds)

    def settle(self, url: str, belongs: bool) -> bool:
        """Take it in, or leave it out: then it rests, and is checked again before it is given work."""
        one = self._all[url]
        one.known = belongs
        if belongs:
            one.failures, one.rests_until = 0, 0.0
        else:
            self.rest(one)
        return belongs


def _faded(seconds: float) -> float:
    """What is left of a memory so old."""
    return math.pow(0.5, seconds / _HALF_LIFE)
