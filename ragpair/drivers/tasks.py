"""Flows on tasks. A client lives as long as its event loop, and is closed with it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import httpx

from ragpair import local
from ragpair.drivers.common import (
    FAULTS,
    Attempts,
    Replicas,
    advance,
    client_options,
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


@dataclass(frozen=True, slots=True)
class _Here:
    """What an async driver holds on one event loop."""

    keeper: _Keeper
    client: httpx.AsyncClient
    places: asyncio.Semaphore
    when_forgotten: weakref.finalize[Any, Any]


class AsyncDriver:
    """Runs flows with tasks, on any number of event loops, one after another or at the same time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._replicas = Replicas(endpoint.base_urls)
        self._loops: dict[int, _Here] = {}

    async def run(self, flow: Flow[T]) -> T:
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
                answer = await (self._gather(step) if isinstance(step, Gather) else self._send(step))
            except RagpairError as exc:
                error = exc

    async def close(self) -> None:
        """Close the connections of the running loop. The driver opens new ones when it is used again."""
        here = self._loops.pop(id(asyncio.get_running_loop()), None)
        if here is not None:
            here.when_forgotten.detach()
            await here.keeper.close(here.client)

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
        here = _Here(keeper, client, asyncio.Semaphore(self.endpoint.max_concurrency), when_forgotten)
        self._loops[id(loop)] = here  # before the first await: another task of this loop must find it
        await keeper.keep(client)
        return here

    async def _send(self, call: Call) -> Reply:
        if self.endpoint.is_local:
            return await asyncio.to_thread(local.handle, call)
        here = await self._here()
        attempts = Attempts(self.endpoint, call)
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
            return reply(await client.request(url=url + call.path, **request(call)), url, call)
        except FAULTS as exc:
            return fault(exc, url, closed=client.is_closed)

    async def _gather(self, step: Gather) -> list[Any]:
        pending = enumerate(step.flows)
        results: dict[int, Any] = {}

        async def work() -> None:
            for number, flow in pending:
                results[number] = await self.run(flow)

        workers = [asyncio.create_task(work()) for _ in range(width(step, self.endpoint))]
        try:
            done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            for worker in done:
                worker.result()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [results[number] for number in range(len(results))]
