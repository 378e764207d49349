"""The only I/O of the package: two drivers run the same flows, one with threads, one with tasks.

A driver sends calls, limits how many are in flight, balances replicas, retries, and times out. It hands back whatever
answer came, with any status, since only the flow knows what a status means; when no answer came at all, it throws
`EndpointUnreachable` into the flow.

Clients live as long as what they are bound to: a sync client as long as its process (a forked child opens its own),
an async client as long as its event loop. An async generator that is started on the loop closes the client when the
loop shuts down (`asyncio.run` finalises such generators), so that repeated `asyncio.run`, notebooks and worker threads
with loops of their own neither share sockets nor leave any behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from functools import cache
from operator import length_hint
from typing import Any, TypeVar

import httpx
import orjson

from ragpair import local
from ragpair.endpoint import Endpoint
from ragpair.errors import ConfigurationError, EndpointUnreachable, RagpairError
from ragpair.retry import Lost
from ragpair.wire import Call, Flow, Gather, Reply

T = TypeVar("T")

CONNECT_TIMEOUT = 5.0
# vLLM drops a connection that was idle for 5 seconds; leave it before that, or the next request meets a dead one.
KEEPALIVE_EXPIRY = 4.0
# A proxy from the environment must not catch requests to this very machine.
_NO_PROXY = ("all://localhost", "all://127.0.0.1", "all://[::1]")


@cache
def _tls() -> ssl.SSLContext:
    """One context for all clients: making one costs tens of milliseconds, also for http:// addresses."""
    return httpx.create_ssl_context()


def _client_options(endpoint: Endpoint) -> dict[str, Any]:
    headers = dict(endpoint.headers)
    if endpoint.api_key is not None:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    return {
        "headers": headers,
        "timeout": httpx.Timeout(endpoint.timeout, connect=CONNECT_TIMEOUT),
        "limits": httpx.Limits(
            max_connections=None,  # the driver's own limit counts
            max_keepalive_connections=endpoint.max_concurrency * len(endpoint.base_urls),
            keepalive_expiry=KEEPALIVE_EXPIRY,
        ),
        "verify": _tls(),
        "follow_redirects": False,  # a redirect would carry texts and key to a host that nobody named
    }


def _request(call: Call) -> dict[str, Any]:
    if call.body is None:
        return {"method": "GET"}
    try:
        content = orjson.dumps(call.body)
    except orjson.JSONEncodeError as exc:
        raise ConfigurationError(
            f"The request to {call.path} cannot be written as JSON ({exc}): check extra_body= and the prompts."
        ) from exc
    return {
        "method": "POST",
        "content": content,
        "headers": {"Content-Type": "application/json"},
    }


def _reply(response: httpx.Response, endpoint: str, call: Call) -> Reply:
    return Reply(response.status_code, response.content, endpoint, call.path, dict(response.headers))


def _lost(exc: httpx.HTTPError) -> Lost:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Lost("untrusted", cause.verify_message)
        cause = cause.__cause__ or cause.__context__
    reason = str(exc) or type(exc).__name__
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError | httpx.UnsupportedProtocol):
        return Lost("refused", reason)
    if isinstance(exc, httpx.TimeoutException):
        return Lost("timeout", reason)
    return Lost("dropped", reason)


_CURES = {
    "refused": "Is the server running, and is this its address and port?",
    "dropped": "The server may have died on this input, or a proxy cut it off; its log tells.",
    "timeout": "The server may be loading its model or be overloaded; raise timeout=, or lower batch_size=.",
    "untrusted": "Its TLS certificate is not trusted here; SSL_CERT_FILE names the file of a private authority.",
}


class _Replicas:
    """Which replica is asked next: the one with the fewest requests outstanding, not the one that just failed."""

    def __init__(self, base_urls: tuple[str, ...]) -> None:
        self._base_urls = base_urls
        self._outstanding: Counter[str] = Counter()
        self._turn = 0

    @contextlib.contextmanager
    def one(self, failed: set[str]) -> Iterator[str]:
        candidates = [url for url in self._base_urls if url not in failed] or list(self._base_urls)
        self._turn += 1  # ties take turns; a lost update under threads does no harm
        start = self._turn % len(candidates)
        url = min(candidates[start:] + candidates[:start], key=lambda u: self._outstanding[u])
        self._outstanding[url] += 1
        try:
            yield url
        finally:
            self._outstanding[url] -= 1


@dataclass(slots=True)
class _Attempts:
    """The tries of one call: what is common to both drivers."""

    endpoint: Endpoint
    call: Call
    made: int = 0
    failed: set[str] = field(default_factory=set)

    def judge(self, url: str, outcome: Reply | Lost) -> float | Reply:
        """Seconds to wait before the next try, or the final reply.

        Raises:
            EndpointUnreachable: No answer came, and no try is left.
        """
        self.made += 1
        if isinstance(outcome, Reply) and outcome.ok:
            return outcome
        delay = self.endpoint.retry.delay(self.made, outcome, self.call.resend_after_drop)
        if delay is not None:
            self.failed.add(url)
            return 0.0 if len(self.failed) < len(self.endpoint.base_urls) else delay
        if isinstance(outcome, Reply):
            return outcome
        tries = "once" if self.made == 1 else f"{self.made} times"
        raise EndpointUnreachable(
            f"{url}{self.call.path} gave no answer ({outcome.how}: {outcome.reason}), tried {tries}. "
            f"{_CURES[outcome.how]}",
            endpoint=url,
        )


def _width(step: Gather, endpoint: Endpoint) -> int:
    limit = min(endpoint.max_concurrency, step.in_flight or endpoint.max_concurrency)
    return max(1, min(limit, length_hint(step.flows, limit)))


def _advance(flow: Flow[T], answer: Any, error: RagpairError | None) -> Call | Gather:
    return flow.throw(error) if error is not None else flow.send(answer)


# --- sync ------------------------------------------------------------------------------------------------------------


class _Threads:
    """What a sync driver holds in one process."""

    def __init__(self, endpoint: Endpoint) -> None:
        mounts = dict.fromkeys(_NO_PROXY)
        self.client = httpx.Client(mounts=mounts, **_client_options(endpoint))
        self.pool = ThreadPoolExecutor(endpoint.max_concurrency, thread_name_prefix="ragpair")
        self.places = threading.BoundedSemaphore(endpoint.max_concurrency)
        self.inside = threading.local()


class SyncDriver:
    """Runs flows with threads. Thread-safe; usable after fork; picklable by what it is made from."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._replicas = _Replicas(endpoint.base_urls)
        self._by_process: dict[int, _Threads] = {}

    def run(self, flow: Flow[T]) -> T:
        """The result of the flow; its errors are raised as they are."""
        answer: Any = None
        error: RagpairError | None = None
        while True:
            try:
                step = _advance(flow, answer, error)
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
            threads.client.close()

    @property
    def _threads(self) -> _Threads:
        pid = os.getpid()
        threads = self._by_process.get(pid)
        if threads is None:
            fresh = _Threads(self.endpoint)
            threads = self._by_process.setdefault(pid, fresh)  # atomic: of two threads, one wins
            loser = fresh if threads is not fresh else None
            if loser is not None:
                loser.client.close()
            else:
                weakref.finalize(self, fresh.client.close)
        return threads

    def _send(self, call: Call) -> Reply:
        if self.endpoint.is_local:
            return local.handle(call)
        threads = self._threads
        attempts = _Attempts(self.endpoint, call)
        while True:
            with threads.places, self._replicas.one(attempts.failed) as url:
                outcome = self._exchange(threads.client, url, call)
            verdict = attempts.judge(url, outcome)
            if isinstance(verdict, Reply):
                return verdict
            time.sleep(verdict)

    def _exchange(self, client: httpx.Client, url: str, call: Call) -> Reply | Lost:
        try:
            return _reply(client.request(url=url + call.path, **_request(call)), url, call)
        except httpx.HTTPError as exc:
            return _lost(exc)
        except (httpx.InvalidURL, UnicodeError) as exc:
            raise ConfigurationError(f"{url!r} cannot be called: {exc}") from exc

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
        helpers = [threads.pool.submit(work) for _ in range(_width(step, self.endpoint) - 1)]
        try:
            work()
        finally:
            stopped.set()
            started = [helper for helper in helpers if not helper.cancel()]
            wait_for(started)
        for helper in started:
            helper.result()
        return [results[number] for number in range(len(results))]


# --- async -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Loop:
    """What an async driver holds on one event loop."""

    loop: asyncio.AbstractEventLoop
    client: httpx.AsyncClient
    places: asyncio.Semaphore
    lifetime: AsyncGenerator[None]


async def _lifetime(client: httpx.AsyncClient) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await client.aclose()


class AsyncDriver:
    """Runs flows with tasks, on any number of event loops, one after another or at the same time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._replicas = _Replicas(endpoint.base_urls)
        self._loops: dict[int, _Loop] = {}

    async def run(self, flow: Flow[T]) -> T:
        """The result of the flow; its errors are raised as they are."""
        answer: Any = None
        error: RagpairError | None = None
        while True:
            try:
                step = _advance(flow, answer, error)
            except StopIteration as stop:
                result: T = stop.value
                return result
            answer, error = None, None
            try:
                answer = await (self._gather(step) if isinstance(step, Gather) else self._send(step))
            except RagpairError as exc:
                error = exc

    async def close(self) -> None:
        """Close the connections of the running loop. The driver opens new ones when it is used again."""
        here = self._loops.pop(id(asyncio.get_running_loop()), None)
        if here is not None:
            await here.lifetime.aclose()

    async def _here(self) -> _Loop:
        loop = asyncio.get_running_loop()
        here = self._loops.get(id(loop))
        if here is not None and here.loop is loop:
            return here
        for key, known in list(self._loops.items()):
            if known.loop.is_closed():
                self._loops.pop(key, None)
        client = httpx.AsyncClient(mounts=dict.fromkeys(_NO_PROXY), **_client_options(self.endpoint))
        lifetime = _lifetime(client)
        here = _Loop(loop, client, asyncio.Semaphore(self.endpoint.max_concurrency), lifetime)
        self._loops[id(loop)] = here  # before the first await: another task of this loop must find it
        await anext(lifetime)
        return here

    async def _send(self, call: Call) -> Reply:
        if self.endpoint.is_local:
            return await asyncio.to_thread(local.handle, call)
        here = await self._here()
        attempts = _Attempts(self.endpoint, call)
        while True:
            async with here.places:
                with self._replicas.one(attempts.failed) as url:
                    outcome = await self._exchange(here.client, url, call)
            verdict = attempts.judge(url, outcome)
            if isinstance(verdict, Reply):
                return verdict
            await asyncio.sleep(verdict)

    async def _exchange(self, client: httpx.AsyncClient, url: str, call: Call) -> Reply | Lost:
        try:
            return _reply(await client.request(url=url + call.path, **_request(call)), url, call)
        except httpx.HTTPError as exc:
            return _lost(exc)
        except (httpx.InvalidURL, UnicodeError) as exc:
            raise ConfigurationError(f"{url!r} cannot be called: {exc}") from exc

    async def _gather(self, step: Gather) -> list[Any]:
        pending = enumerate(step.flows)
        results: dict[int, Any] = {}

        async def work() -> None:
            for number, flow in pending:
                results[number] = await self.run(flow)

        workers = [asyncio.create_task(work()) for _ in range(_width(step, self.endpoint))]
        try:
            done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            for worker in done:
                worker.result()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [results[number] for number in range(len(results))]
