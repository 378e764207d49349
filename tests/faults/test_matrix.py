"""Each fault on each engine, with one server and with three, in both colours.

No vector and no score is lost, doubled or given to the wrong text: what comes back is right, or it is an error that
names the server. And no server is asked more often than the policy allows.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson
import pytest

from ragpair import EndpointError, RagpairError
from ragpair.testing import FakeServer

from .cases import CASES, ENGINE_WAYS, OTHERS, TEXTS, WAYS, Case, Way

Ask = Callable[[list[str]], object]


def cells(ways: list[Way]) -> list[Any]:
    """Each case with those of its ways that are among these."""
    return [pytest.param(case, way, id=f"{case.name}-{way}") for case in CASES for way in case.ways if way in ways]


@pytest.fixture(scope="module")
def running() -> Iterator[dict[Way, list[FakeServer]]]:
    """Servers that are used by one test after another: starting them takes longer than the tests."""
    servers: dict[Way, list[FakeServer]] = {}
    yield servers
    for three in servers.values():
        for server in three:
            server.stop()


@pytest.fixture
def servers(way: Way, running: dict[Way, list[FakeServer]]) -> list[FakeServer]:
    """Three of one engine, as new."""
    three = running.setdefault(way, [way.server() for _ in range(3)])
    for server in three:
        mend(server)
    return three


def mend(server: FakeServer) -> None:
    """Forget the faults before it listens again: a request that comes late must not meet one, and die of it."""
    server.clear()
    server.start()


@pytest.fixture
def use(way, call, embedder, reranker, waits):
    """`use(servers, case)` makes a client that has met them; what it returns asks for vectors or scores."""

    def client(servers, case):
        urls = [server.url for server in servers]
        thing = (embedder if way.task == "embed" else reranker)(urls, **case.options)
        call(thing, *way.arguments(["warm up"]))
        for server in servers:
            server.clear()
        return lambda texts: call(thing, *way.arguments(texts))

    return client


def requests(servers: list[FakeServer], texts: list[str]) -> Counter[bytes]:
    """How often each request about some of these texts was made."""
    made = Counter(orjson.dumps([request.path, request.body]) for server in servers for request in server.work)
    return Counter({body: count for body, count in made.items() if any(text.encode() in body for text in texts)})


def is_right(way: Way, texts: list[str], result: object) -> bool:
    return np.shape(result) == np.shape(way.expected(texts)) and np.allclose(result, way.expected(texts), atol=1e-6)


def is_wrong(case: Case, error: RagpairError, servers: list[FakeServer]) -> bool:
    """Whether the error is the one of the table, and names its server."""
    assert isinstance(error, EndpointError)
    named = error.endpoint in [server.url for server in servers] and error.endpoint in str(error)
    return isinstance(error, case.error) and named and len(str(error)) < 1000


def is_right_or_wrong(way: Way, case: Case, ask: Ask, servers: list[FakeServer]) -> bool:
    try:
        return is_right(way, TEXTS, ask(TEXTS))
    except RagpairError as error:
        return is_wrong(case, error, servers)


@pytest.mark.parametrize(("case", "way"), cells(WAYS))
def test_one_server(servers, use, case, way):
    server = servers[0]
    ask = use([server], case)

    if not case.lasting:
        case.happen(server, 1)
        if case.end == "may be one text's":
            assert is_right_or_wrong(way, case, ask, [server])
        elif case.end == "final":
            with pytest.raises(case.error, match=case.words) as caught:
                ask(TEXTS)
            assert is_wrong(case, caught.value, [server])
        else:
            assert is_right(way, TEXTS, ask(TEXTS))
            again = [count for count in requests([server], TEXTS).values() if count > 1]
            assert again == ([2] if case.end == "passes" else [])
        server.clear()

    case.happen(server, None)
    if case.end == "harmless":
        assert is_right(way, OTHERS, ask(OTHERS))
    else:
        with pytest.raises(case.error, match=case.words) as caught:
            ask(OTHERS)
        assert is_wrong(case, caught.value, [server])
    assert max(requests([server], OTHERS).values(), default=0) <= case.most(way, 1)
    mend(server)
    assert is_right(way, TEXTS, ask(TEXTS))


@pytest.mark.parametrize(("case", "way"), cells(ENGINE_WAYS))
def test_three_servers(servers, use, case, way):
    ask = use(servers, case)

    case.happen(servers[1], None)
    for _ in servers:
        if case.end in ("passes", "harmless"):
            assert is_right(way, TEXTS, ask(TEXTS))
        else:
            assert is_right_or_wrong(way, case, ask, servers[1:2])

    for server in servers:
        mend(server)
        case.happen(server, None)
    if case.end == "harmless":
        assert is_right(way, OTHERS, ask(OTHERS))
        return
    with pytest.raises(case.error, match=case.words) as caught:
        ask(OTHERS)
    assert is_wrong(case, caught.value, servers)
    assert max(requests(servers, OTHERS).values(), default=0) <= case.most(way, 3)


@pytest.mark.parametrize("way", ENGINE_WAYS, ids=str)
@pytest.mark.parametrize("replicas", [1, 3])
def test_connections_that_were_closed_while_idle(servers, embedder, reranker, waits, way, replicas):
    urls = [server.url for server in servers[:replicas]]
    thing = (embedder if way.task == "embed" else reranker)(urls)
    method, *arguments = way.arguments(TEXTS)
    for _ in range(3):
        assert is_right(way, TEXTS, getattr(thing, method)(*arguments))
        for server in servers:
            server.drop_idle()

    async def awaited():
        for _ in range(3):
            assert is_right(way, TEXTS, await getattr(thing, f"a{method}")(*arguments))
            for server in servers:
                await asyncio.to_thread(server.drop_idle)

    asyncio.run(awaited())
    assert waits == []  # noticed before anything was sent
