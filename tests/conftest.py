"""What most tests need: a fake server, objects that talk to it, and each case in both colours.

`call(embedder, "embed_documents", texts)` runs `embedder.embed_documents(texts)`, and in the other half of the runs
`asyncio.run(embedder.aembed_documents(texts))`. Every difference between the two is a bug.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import settings

from ragpair import Embedder, Reranker
from ragpair.retry import RetryPolicy
from ragpair.testing import FakeServer, Fault

settings.register_profile("ragpair", deadline=None)  # machines that run tests are slow now and then
settings.load_profile("ragpair")

ENGINES = ("vllm", "sglang", "ollama", "llamacpp")
Call = Callable[..., Any]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine that can be faked."""
    return str(request.param)


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Calls a method by its sync name, in the colour of this run."""

    def sync(thing: object, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(thing, method)(*args, **kwargs)

    def awaited(thing: object, method: str, *args: Any, **kwargs: Any) -> Any:
        return asyncio.run(getattr(thing, f"a{method}")(*args, **kwargs))

    return sync if request.param == "sync" else awaited


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeServer]]:
    """Starts a fake server that lives as long as the test: `serve("vllm", task="rerank")`."""
    with ExitStack() as servers:
        yield lambda *args, **kwargs: servers.enter_context(FakeServer(*args, **kwargs))


@pytest.fixture
def together() -> Callable[..., None]:
    """`together(server, 4)`: the next four requests that work are answered once all of them have arrived.

    With `after=20`, twenty others come first: concurrency grows with the answers.
    """

    def meet(server: FakeServer, count: int, after: int = 0) -> None:
        if after:
            server.fail(Fault.edit(lambda _: None, times=after))
        barrier = threading.Barrier(count)

        def wait(_: object) -> None:
            barrier.wait(10)

        server.fail(Fault.edit(wait, times=count))

    return meet


def _maker(cls: type) -> Any:
    @pytest.fixture
    def make() -> Iterator[Callable[..., Any]]:
        with ExitStack() as made:
            yield lambda server, *args, **kwargs: made.enter_context(
                cls(server.url if isinstance(server, FakeServer) else server, *args, **kwargs)
            )

    return make


embedder = _maker(Embedder)
reranker = _maker(Reranker)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Retries come at once; the waits that the policy asked for are in this list."""
    asked: list[float] = []
    real = RetryPolicy.delay

    def delay(self: RetryPolicy, *args: Any) -> float | None:
        wait = real(self, *args)
        if wait is None:
            return None
        asked.append(wait)
        return 0.0

    monkeypatch.setattr(RetryPolicy, "delay", delay)
    return asked
