"""Flows on tasks. A client lives as long as its event loop, and is closed with it."""

from __future__ import annotations

import asyncio
import math
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

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


class _Keeper:
    """The clients of one event loop, to be closed on it: nobody else can, once the loop is gone.

    A loop that ends (`asyncio.run`, a web server, a notebook) finalises the async generators that were started on it;
    one of them is ours, and closes what is open. A client whose driver was forgotten before that is closed when the
    next one is opened: not at once, since the task that would do it may be cancelled half-way by the end of the loop.
    """

    _by_loop: ClassVar[dict[int, _Keeper]] = {}

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.orphans: list[httpx.AsyncClient] = []
        self._clients: set[httpx.AsyncClient] = set()
        self._end = self._until_the_end()
        self._started = False

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> _Keeper:
        """The keeper of a loop; those of loops that were closed without an end are dropped."""
        for key, keeper in list(cls._by_loop.items()):
            if keeper.loop.is_closed():
                cls._by_loop.pop(key, None)
        return cls._by_loop.setdefault(id(loop), cls(loop))

    async def keep(self, client: httpx.AsyncClient) -> None:
        """Take over a client."""
        self._clients.add(client)
        if not self._started:
            self._started = True
            await anext(self._end)
        while self.orphans:
            await self.close(self.orphans.pop())

    async def close(self, client: httpx.AsyncClient) -> None:
        """Close a client now."""
        self._clients.discard(client)
        await client.aclose()

    async def _until_the_end(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._by_loop.pop(id(self.loop), None)
            for client in list(self._clients):
                await client.aclose()


class _Permits(Permits):
    def __init__(self, most: int) -> None:
        self._here = asyncio.Semaphore(at_first(most))
        super().__init__(self._here, most)

    async def __aenter__(self) -> Self:
        await self._here.acquire()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.leave()


@dataclass(slots=True)
class _Here:
    """What an async driver holds on one event loop. Closed by whoever leaves it last: calls under way are finished."""

    keeper: _Keeper
    client: httpx.AsyncClient
    permits: _Permits
    when_forgotten: weakref.finalize[Any, Any]
    inside: int = 0
    closing: bool = False

    async def __aenter__(self) -> Self:
        self.inside += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.inside -= 1
        if self.closing and not self.inside:
            self.when_forgotten.detach()
            await self.keeper.close(self.client)

    async def close(self) -> None:
        """Close the connections when nobody uses them any more."""
        async with self:
            self.closing = True


class _Several(Generic[T]):
    """The results of flows in order: at most `width` run at a time, and at most `ahead` before their turn.

    The first error is raised at once if `eager`, else where its result would have come. This is no async generator,
    since a loop that ends closes those all at the same time, the inner ones while the outer ones do.
    """

    def __init__(
        self,
        run: Callable[[Flow[T], _Here], Coroutine[Any, Any, T]],
        here: _Here,
        flows: Iterator[Flow[T]] | AsyncIterator[Flow[T]],
        *,
        width: int,
        ahead: float,
        eager: bool,
    ) -> None:
        self._run, self._here, self._flows = run, here, flows
        self._width, self._ahead, self._eager = width, ahead, eager
        self._running: dict[asyncio.Task[T], int] = {}
        self._early: dict[int, asyncio.Task[T]] = {}
        self._taken = self._given = 0
        self._more = True
        self._ended: Exception | None = None  # of the iterator

    async def __aenter__(self) -> Self:
        await self._here.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._here.__aexit__(*exc)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while True:
            await self._fill()
            if self._given in self._early:
                result = self._early.pop(self._given).result()
                self._given += 1
                return result
            if not self._more and self._given == self._taken:
                if self._ended is not None:
                    raise self._ended
                raise StopAsyncIteration
            for task in (await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED))[0]:
                if not task.cancelled() and task.exception() is not None:
                    self._more = False
                    if self._eager:
                        task.result()
                self._early[self._running.pop(task)] = task

    async def _fill(self) -> None:
        """Start as many flows as there is room for."""
        while (
            self._more
            and len(self._running) < min(self._width, self._here.permits.now)
            and self._taken - self._given < self._ahead
        ):
            try:
                flows = self._flows
                flow = next(flows, None) if isinstance(flows, Iterator) else await anext(flows, None)
            except Exception as exc:
                if self._eager:
                    raise
                flow, self._ended = None, exc
            if flow is None:
                self._more = False
                return
            self._running[asyncio.create_task(self._run(flow, self._here))] = self._taken
            self._taken += 1


class AsyncDriver:
    """Runs flows with tasks, on any number of event loops, one after another or at the same time."""

    def __init__(self, endpoint: Endpoint, replicas: Replicas | None = None) -> None:
        self.endpoint = endpoint
        self._replicas = replicas or Replicas(endpoint.base_urls)
        self._headers = headers(endpoint)
        self._loops: dict[int, _Here] = {}

    async def run(self, flow: Flow[T]) -> T:
        """The result of the flow; its errors are raised as they are."""
        async with await self._here() as here:
            return await self._run(flow, here)

    async def _run(self, flow: Flow[T], here: _Here) -> T:
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
                    several = _Several(self._run, here, flows, width=width, ahead=math.inf, eager=True)
                    async with several:
                        answer = [one async for one in several]
                else:
                    answer = await self._send(step, here)
            except RagpairError as exc:
                error = exc

    async def stream(self, flows: AsyncIterator[Flow[T]], in_flight: int | None = None) -> _Several[T]:
        """The results of the flows in order, as they are asked for; a bounded number of flows runs ahead.

        To be entered with `async with`, and iterated there. An error comes where its result would have come, after
        those before it.
        """
        width = self.endpoint.at_once(in_flight)
        return _Several(self._run, await self._here(), flows, width=width, ahead=2 * width, eager=False)

    async def close(self) -> None:
        """Close the connections of the running loop, those of calls under way after these; new ones are opened anew."""
        here = self._loops.pop(id(asyncio.get_running_loop()), None)
        if here is not None:
            await here.close()

    async def _here(self) -> _Here:
        loop = asyncio.get_running_loop()
        here = self._loops.get(id(loop))
        if here is not None and here.keeper.loop is loop:
            return here
        for key, known in list(self._loops.items()):
            if known.keeper.loop.is_closed():
                known.when_forgotten.detach()
                self._loops.pop(key, None)
        keeper = _Keeper.of(loop)
        client = httpx.AsyncClient(**client_options(self.endpoint))
        when_forgotten = weakref.finalize(self, keeper.orphans.append, client)
        here = _Here(keeper, client, _Permits(self.endpoint.max_concurrency), when_forgotten)
        self._loops[id(loop)] = here  # before the first await: another task of this loop must find it
        await keeper.keep(client)
        return here

    # --- one call ---

    async def _send(self, call: Call, here: _Here) -> Reply:
        if self.endpoint.is_local:
            return await asyncio.to_thread(local.handle, call)
        attempts = Attempts(self.endpoint, self._replicas, call)
        while True:
            async with here.permits:
                one = attempts.choose()
                outcome = None
                if not self._replicas.must_check(one, call):
                    outcome = await self._exchange(here, one, call)
            if outcome is None:
                if await self._belongs(one, here):
                    continue
                outcome = attempts.last or LEFT_OUT
            verdict = attempts.judge(one, outcome)
            if isinstance(verdict, Reply):
                return verdict
            await asyncio.sleep(verdict)

    async def _exchange(self, here: _Here, one: Replica, call: Call) -> Reply | Lost:
        with self._replicas.asking(one, call):
            in_flight, load = one.requests, one.load
            sent, started = time.monotonic(), time.perf_counter()
            outcome: Reply | Lost
            try:
                response = await here.client.send(request(one.url, call, self._headers), stream=True)
                try:
                    body = Body(response, one.url, call, started, self.endpoint.timeout)
                    async for chunk in response.aiter_bytes():
                        body.add(chunk)
                finally:
                    await response.aclose()
                outcome = body.reply(in_flight)
            except FAULTS as exc:
                outcome = fault(exc, one.url, closed=here.client.is_closed)
        self._replicas.note(one, call, outcome, load)
        here.permits.heed(call, outcome, sent)
        return outcome

    async def _belongs(self, one: Replica, here: _Here) -> bool:
        """Whether a replica that was away still is one; if not, it is left out."""
        assert self._replicas.check is not None
        return self._replicas.settle(one.url, await self._run(self._replicas.check(one.url), here))
