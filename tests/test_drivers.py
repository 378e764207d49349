"""The two drivers run any flow, not only those of embedding: order, limits, errors, waits."""

import asyncio
import os
import time
import types

import pytest

from ragpair import ConfigurationError, EndpointUnreachable, RagpairError
from ragpair.drivers import AsyncDriver, SyncDriver, tasks, threads
from ragpair.endpoint import Endpoint
from ragpair.testing import Fault
from ragpair.wire import Call, gather, send


@pytest.fixture(params=["sync", "async"])
def run(request, serve):
    """Runs a flow against a server, in both colours: `run(flow, server, max_concurrency=3)`."""

    def sync(flow, *servers, **options):
        driver = SyncDriver(Endpoint(tuple(server.url for server in servers), **options))
        try:
            return driver.run(flow)
        finally:
            driver.close()

    def awaited(flow, *servers, **options):
        return asyncio.run(AsyncDriver(Endpoint(tuple(server.url for server in servers), **options)).run(flow))

    return sync if request.param == "sync" else awaited


def ask(text):
    reply = yield from send(Call("/v1/embeddings", {"input": [text]}))
    return text, reply.status


def test_a_flow_gets_its_reply(serve, run):
    server = serve("vllm")

    def flow():
        reply = yield from send(Call("/version"))
        return reply.json(), reply.endpoint, reply.path, reply.headers["content-type"]

    assert run(flow(), server) == ({"version": "0.32.0"}, server.url, "/version", "application/json")


def test_a_flow_that_asks_nothing(serve, run):
    def flow():
        return 7
        yield

    assert run(flow(), serve("vllm")) == 7


def test_gathered_results_are_in_order(serve, run):
    def flow():
        nothing = yield from gather([])
        some = yield from gather(ask(f"t{n}") for n in range(20))
        return nothing, some

    assert run(flow(), serve("vllm", latency=0.002)) == ([], [(f"t{n}", 200) for n in range(20)])


@pytest.mark.parametrize(("limit", "peak"), [(None, 4), (2, 2), (99, 4), (1, 1)])
def test_a_gathering_may_ask_for_less_than_the_limit(serve, run, limit, peak, together):
    server = serve("vllm", latency=0.005)
    together(server, peak)
    run(gather((ask(f"t{n}") for n in range(10)), limit), server, max_concurrency=4)
    assert server.in_flight_peak == peak


def test_flows_are_started_as_places_become_free(serve, run):
    started = []

    def flows():
        for n in range(30):
            started.append(n)
            yield ask(f"t{n}") if n != 3 else broken()

    def broken():
        raise RagpairError("broken")
        yield

    with pytest.raises(RagpairError, match="broken"):
        run(gather(flows()), serve("vllm", latency=0.01), max_concurrency=2)
    assert len(started) < 10


def test_errors_are_thrown_into_the_flow_which_may_go_on(serve, run, waits):
    def flow():
        try:
            yield from send(Call("/v1/embeddings", {"input": ["a"]}))
        except EndpointUnreachable as exc:
            first = exc
        return first, (yield from ask("b"))

    server = serve("vllm")
    server.fail(Fault.drop(times=4))
    error, answer = run(flow(), server)
    assert "tried 4 times" in str(error)
    assert answer == ("b", 200)


def test_errors_that_are_no_part_of_the_conversation_come_through_as_they_are(serve, run):
    def flow():
        yield from ask("a")
        raise ZeroDivisionError("a bug")

    def many():
        return (yield from gather(flow() for _ in range(5)))

    for one in (flow(), many()):
        with pytest.raises(ZeroDivisionError, match="a bug"):
            run(one, serve("vllm"))


def test_waits_are_waited(serve, run, monkeypatch):
    slept = []

    async def nap(seconds):
        slept.append(seconds)

    monkeypatch.setattr(threads, "time", types.SimpleNamespace(**{**vars(time), "sleep": slept.append}))
    monkeypatch.setattr(tasks, "asyncio", types.SimpleNamespace(**{**vars(asyncio), "sleep": nap}))
    server = serve("vllm")
    server.fail(Fault(status=503, headers={"Retry-After": "5"}), Fault(status=503), Fault(status=503))
    assert run(ask("a"), server) == ("a", 200)
    assert slept[0] == 5.0
    assert 0.375 <= slept[1] <= 0.5
    assert 0.75 <= slept[2] <= 1.0


def test_a_call_that_must_not_be_repeated(serve, run, waits):
    def flow():
        yield from send(Call("/v1/embeddings", {"input": ["a"]}, resend_after_drop=0))

    server = serve("vllm")
    server.fail(Fault.drop(times=None))
    with pytest.raises(EndpointUnreachable, match="tried once"):
        run(flow(), server)
    assert len(server.work) == 1


def test_the_replica_that_failed_is_not_asked_again_at_once(serve, run, waits):
    servers = [serve("vllm"), serve("vllm")]
    servers[0].fail(Fault(status=503, times=None))
    for _ in range(4):
        assert run(ask("a"), *servers)[1] == 200
    assert len(servers[1].work) == 4
    assert set(waits) <= {0.0}


def test_a_request_that_cannot_be_written(serve, run):
    with pytest.raises(ConfigurationError, match="JSON"):
        run(send(Call("/v1/embeddings", {"input": [object()]})), serve("vllm"))


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(serve, run, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setitem(os.environ, name, "http://127.0.0.1:9")
    monkeypatch.delitem(os.environ, "NO_PROXY", raising=False)
    monkeypatch.delitem(os.environ, "no_proxy", raising=False)
    assert run(ask("a"), serve("vllm")) == ("a", 200)


def test_cookies_and_redirects_change_nothing(serve, run):
    server = serve("vllm")
    server.fail(Fault(302, "", headers={"Location": "/version", "Set-Cookie": "a=b"}))
    assert run(ask("a"), server) == ("a", 302)
    assert [request.path for request in server.requests] == ["/v1/embeddings"]
