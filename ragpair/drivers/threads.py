"""Flows on threads. A client lives as long as its process: a forked child opens its own."""

from __future__ import annotations

import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any, TypeVar

import httpx

from ragpair import local
from ragpair.drivers.common import (
    FAULTS,
    Attempts,
    Replicas,
    advance,
    client_options,
    closed_meanwhile,
    fault,
    reply,
    request,
    width,
)
from ragpair.endpoint import Endpoint
from ragpair.errors import RagpairError
from ragpair.retry import Lost
from ragpair.wire import Call, Flow, Gather, Reply

T = TypeVar("T")


class _Threads:
    """What a sync driver holds in one process."""

    def __init__(self, endpoint: Endpoint, owner: SyncDriver) -> None:
        self.client = httpx.Client(**client_options(endpoint))
        self.pool = ThreadPoolExecutor(endpoint.max_concurrency, thread_name_prefix="ragpair")
        self.places = threading.BoundedSemaphore(endpoint.max_concurrency)
        self.inside = threading.local()
        self.when_forgotten = weakref.finalize(owner, self.client.close)


class SyncDriver:
    """Runs flows with threads. Thread-safe; usable after fork; picklable by what it is made from."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._replicas = Replicas(endpoint.base_urls)
        self._by_process: dict[int, _Threads] = {}

    def run(self, flow: Flow[T]) -> T:
        """The result of the flow; its errors are raised as they are."""
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
                answer = self._gather(step) if isinstance(step, Gather) else self._send(step)
            except RagpairError as exc:
                error = exc

    def close(self) -> None:
        """Close all connections. The driver opens new ones when it is used again."""
        threads = self._by_process.pop(os.getpid(), None)
        if threads is not None:
            threads.pool.shutdown(wait=False, cancel_futures=True)
            threads.when_forgotten()

    @property
    def _threads(self) -> _Threads:
        pid = os.getpid()
        threads = self._by_process.get(pid)
        if threads is None:
            fresh = _Threads(self.endpoint, self)
            threads = self._by_process.setdefault(pid, fresh)  # atomic: of two threads, one wins
            if threads is not fresh:
                fresh.when_forgotten()
        return threads

    def _send(self, call: Call) -> Reply:
        if self.endpoint.is_local:
            return local.handle(call)
        threads = self._threads
        attempts = Attempts(self.endpoint, call)
        while True:
            with threads.places, self._replicas.one(attempts.failed) as url:
                outcome = self._exchange(threads.client, url, call)
            verdict = attempts.judge(url, outcome)
            if isinstance(verdict, Reply):
                return verdict
            time.sleep(verdict)

    def _exchange(self, client: httpx.Client, url: str, call: Call) -> Reply | Lost:
        try:
            return reply(client.request(url=url + call.path, **request(call)), url, call)
        except FAULTS as exc:
            return fault(exc, url, closed=client.is_closed)

    def _gather(self, step: Gather) -> list[Any]:
        threads = self._threads
        if getattr(threads.inside, "gather", False):  # a worker that waits for workers would wait for itself
            return [self.run(flow) for flow in step.flows]
        pending = enumerate(step.flows)
        taking = threading.Lock()
        stopped = threading.Event()
        results: dict[int, Any] = {}

        def work() -> None:
            threads.inside.gather = True
            try:
                while not stopped.is_set():
                    with taking:
                        numbered = next(pending, None)
                    if numbered is None:
                        return
                    number, flow = numbered
                    results[number] = self.run(flow)
            except BaseException:
                stopped.set()
                raise
            finally:
                threads.inside.gather = False

        # This thread works too, so that callers who share the pool never wait for each other's whole lists.
        try:
            helpers = [threads.pool.submit(work) for _ in range(width(step, self.endpoint) - 1)]
        except RuntimeError as exc:
            raise closed_meanwhile(self.endpoint.shown) from exc
        try:
            work()
        finally:
            stopped.set()
            started = [helper for helper in helpers if not helper.cancel()]
            wait_for(started)
        for helper in started:
            helper.result()
        return [results[number] for number in range(len(results))]
