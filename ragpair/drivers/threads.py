"""Flows on threads. A client lives as long as its process: a forked child opens its own."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Self, TypeVar

import httpx

from ragpair import local
from ragpair.drivers.attempts import LEFT_OUT, Attempts
from ragpair.drivers.exchange import FAULTS, Body, client_options, fault, headers, request
from ragpair.drivers.permits import Permits, at_first
from ragpair.drivers.replicas import Replica, Replicas
from ragpair.endpoint import Endpoint
from ragpair.errors import RagpairError
from ragpair.retry import Lost
from ragpair.wire import Call, Flow, Gather, Reply, advance

T = TypeVar("T")


class _Stopped(Exception):
    """Nobody waits for this flow any more. It never leaves this module."""


class _Permits(Permits):
    def __init__(self, most: int) -> None:
        self._here = threading.Semaphore(at_first(most))
        super().__init__(self._here, most)

    def __enter__(self) -> Self:
        self._here.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.leave()


class _Process:
    """What a sync driver holds in one process. Closed by whoever leaves it last: calls under way are finished."""

    def __init__(self, endpoint: Endpoint, owner: SyncDriver) -> None:
        self.client = httpx.Client(**client_options(endpoint))
        self.permits = _Permits(endpoint.max_concurrency)
        self._when_forgotten = weakref.finalize(owner, self.client.close)
        self._lock = threading.Lock()
        self._inside = 0
        self._closing = False

    def __enter__(self) -> Self:
        with self._lock:
            self._inside += 1
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._inside -= 1
            last = self._closing and not self._inside
        if last:
            self._when_forgotten()

    def close(self) -> None:
        """Close the connections when nobody uses them any more."""
        with self:
            self._closing = True


@dataclass(frozen=True, slots=True)
class _Done:
    """What became of one of several flows."""

    number: int
    result: Any = None
    error: BaseException | None = None


class SyncDriver:
    """Runs flows with threads. Thread-safe; usable after fork; picklable by what it is made from."""

    def __init__(self, endpoint: Endpoint, replicas: Replicas | None = None) -> None:
        self.endpoint = endpoint
        self._replicas = replicas or Replicas(endpoint.base_urls)
        self._headers = headers(endpoint)
        self._by_process: dict[int, _Process] = {}

    def run(self, flow: Flow[T]) -> T:
        """The result of the flow; its errors are raised as they are."""
        with self._process as process:
            return self._run(flow, process, None)

    def _run(self, flow: Flow[T], process: _Process, stopped: threading.Event | None) -> T:
        answer: Any = None
        error: RagpairError | None = None
        while True:
            try:
                step = advance(flow, answer, error)
            except StopIteration as stop:
                result: T = stop.value
                return result
            answer, error = None, None
            try:
                if isinstance(step, Gather):
                    flows, width = iter(step.flows), self.endpoint.at_once(step.in_flight)
                    if width == 1:
                        answer = [self._run(one, process, stopped) for one in flows]
                    else:
                        answer = list(self._several(flows, process, width, math.inf, eager=True))
                else:
                    answer = self._send(step, process, stopped)
            except RagpairError as exc:
                error = exc

    def stream(self, flows: Iterator[Flow[T]], in_flight: int | None = None) -> Iterator[T]:
        """The results of the flows in order, as they are asked for; a bounded number of flows runs ahead.

        The flows are taken from the iterator in the thread of whoever asks. An error comes where its result would
        have come, after those before it.
        """
        width = self.endpoint.at_once(in_flight)
        with self._process as process:
            yield from self._several(flows, process, width, 2 * width, eager=False)

    def close(self) -> None:
        """Close all connections, those of calls under way after these. The driver opens new ones when used again."""
        process = self._by_process.pop(os.getpid(), None)
        if process is not None:
            process.close()

    @property
    def _process(self) -> _Process:
        pid = os.getpid()
        process = self._by_process.get(pid)
        if process is None:
            fresh = _Process(self.endpoint, self)
            process = self._by_process.setdefault(pid, fresh)  # atomic: of two threads, one wins
            if process is not fresh:
                fresh.close()
        return process

    # --- one call ---

    def _send(self, call: Call, process: _Process, stopped: threading.Event | None) -> Reply:
        if self.endpoint.is_local:
            return local.handle(call)
        attempts = Attempts(self.endpoint, self._replicas, call)
        while True:
            with process.permits:
                if stopped is not None and stopped.is_set():
                    raise _Stopped
                one = attempts.choose()
                outcome = None
                if not self._replicas.must_check(one, call):
                    outcome = self._exchange(process, one, call)
            if outcome is None:
                if self._belongs(one, process, stopped):
                    continue
                outcome = attempts.last or LEFT_OUT
            verdict = attempts.judge(one, outcome)
            if isinstance(verdict, Reply):
                return verdict
            if stopped is None:
                time.sleep(verdict)
            else:
                stopped.wait(verdict)

    def _exchange(self, process: _Process, one: Replica, call: Call) -> Reply | Lost:
        with self._replicas.asking(one, call):
            in_flight, load = one.requests, one.load
            sent, started = time.monotonic(), time.perf_counter()
            outcome: Reply | Lost
            try:
                response = process.client.send(request(one.url, call, self._headers), stream=True)
                try:
                    body = Body(response, one.url, call, started, self.endpoint.timeout)
                    for chunk in response.iter_bytes():
                        body.add(chunk)
                finally:
                    response.close()
                outcome = body.reply(in_flight)
            except FAULTS as exc:
                outcome = fault(exc, one.url, closed=process.client.is_closed)
        self._replicas.note(one, call, outcome, load)
        process.permits.heed(call, outcome, sent)
        return outcome

    def _belongs(self, one: Replica, process: _Process, stopped: threading.Event | None) -> bool:
        """Whether a replica that was away still is one; if not, it is left out."""
        assert self._replicas.check is not None
        return self._replicas.settle(one.url, self._run(self._replicas.check(one.url), process, stopped))

    # --- several flows ---

    def _several(
        self, flows: Iterator[Flow[T]], process: _Process, width: int, ahead: float, *, eager: bool
    ) -> Iterator[T]:
        """The results of flows in order: at most `width` run at a time, and at most `ahead` before their turn.

        This thread hands the flows out and waits, so that it can be interrupted, and the first error, if `eager`, is
        raised at once. Threads that still wait for a server then end by themselves; they keep no interpreter alive.
        """
        todo: SimpleQueue[tuple[int, Flow[T]] | None] = SimpleQueue()
        done: SimpleQueue[_Done] = SimpleQueue()
        stopped = threading.Event()

        def work() -> None:
            while (numbered := todo.get()) is not None and not stopped.is_set():
                number, flow = numbered
                try:
                    with process:
                        result = self._run(flow, process, stopped)
                    done.put(_Done(number, result))
                except BaseException as exc:
                    done.put(_Done(number, error=exc))

        crew: list[threading.Thread] = []
        taken = finished = given = 0
        early: dict[int, _Done] = {}
        more = True
        try:
            while True:
                while more and taken - finished < min(width, process.permits.now) and taken - given < ahead:
                    try:
                        flow = next(flows, None)
                    except Exception as exc:
                        if eager:
                            raise
                        flow, early[taken] = None, _Done(taken, error=exc)
                    if flow is None:
                        more = False
                        break
                    todo.put((taken, flow))
                    taken += 1
                    if len(crew) < taken - finished:
                        crew.append(threading.Thread(target=work, name=f"ragpair-{len(crew)}", daemon=True))
                        crew[-1].start()
                if given in early:
                    outcome = early.pop(given)
                    if outcome.error is not None:
                        raise outcome.error
                    given += 1
                    yield outcome.result
                    continue
                if not more and given == taken:
                    return
                outcome = done.get()  # the caller's thread waits nowhere else
                finished += 1
                if outcome.error is not None:
                    more = False
                    if eager:
                        raise outcome.error
                early[outcome.number] = outcome
        finally:
            stopped.set()
            for _ in crew:
                todo.put(None)
            if finished == taken:  # all are idle, and end at once
                for thread in crew:
                    thread.join()
