"""The awkward hosts: loops that come and go, threads, forks, cancellation."""

import asyncio
import gc
import multiprocessing
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from ragpair import Embedder, RagpairError, Reranker
from ragpair.testing import Fault
from ragpair.testing.model import embed

TEXTS = [f"t{n}" for n in range(12)]


def right(vectors, texts=TEXTS):
    np.testing.assert_allclose(vectors, [embed(text, 64) for text in texts], atol=1e-6)
    return True


def sockets(server):
    """Connections of this process to the server, seen from the client's end."""
    port = int(server.url.rpartition(":")[2])
    found = psutil.Process().net_connections(kind="tcp")
    return [c for c in found if c.raddr and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED]


def test_one_object_in_many_runs(serve, embedder):
    one = embedder(serve("vllm"), batch_size=3)
    for _ in range(4):
        assert right(asyncio.run(one.aembed_documents(TEXTS)))


def test_runs_leave_no_sockets_behind(serve, embedder):
    server = serve("vllm")
    one = embedder(server, batch_size=3)
    for _ in range(4):
        asyncio.run(one.aembed_documents(TEXTS))
        assert sockets(server) == []


def test_sync_and_async_on_one_object(serve, embedder):
    server = serve("vllm")
    one = embedder(server, batch_size=3)

    async def both():
        first = await one.aembed_documents(TEXTS)
        second = one.embed_documents(TEXTS)  # blocks the loop, as in a notebook cell, and works
        third = await one.aembed_documents(TEXTS)
        return right(first) and right(second) and right(third)

    assert right(one.embed_documents(TEXTS))
    assert asyncio.run(both())
    assert right(one.embed_documents(TEXTS))


def test_a_loop_that_was_closed_without_ceremony(serve, embedder):
    one = embedder(serve("vllm"), batch_size=3)
    with warnings.catch_warnings():  # the sockets are closed by the collector, which says so
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(3):
            loop = asyncio.new_event_loop()
            try:
                assert right(loop.run_until_complete(one.aembed_documents(TEXTS)))
            finally:
                loop.close()  # no shutdown_asyncgens, as much old code has it
        assert right(asyncio.run(one.aembed_documents(TEXTS)))  # drops what the last closed loop left
        gc.collect()


def test_six_threads_with_loops_of_their_own(serve, embedder):
    server = serve("vllm", latency=0.01)
    one = embedder(server, batch_size=2)
    start = threading.Barrier(6)

    def work(number):
        start.wait()
        texts = [f"{number} {text}" for text in TEXTS]
        return all(right(asyncio.run(one.aembed_documents(texts)), texts) for _ in range(3))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))
    assert sockets(server) == []


def test_six_threads_start_at_once(serve, embedder):
    server = serve("vllm")
    one = embedder(server, batch_size=2)
    start = threading.Barrier(6)

    def work(number):
        start.wait()
        return right(one.embed_documents(TEXTS))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


async def test_a_sync_call_in_a_worker_thread_of_a_loop(serve, embedder):
    one = embedder(serve("vllm"), batch_size=2)
    results = await asyncio.gather(*[asyncio.to_thread(one.embed_documents, TEXTS) for _ in range(5)])
    assert all(right(result) for result in results)


def in_child(one, queue):
    queue.put(one.embed_documents(TEXTS))
    queue.put(asyncio.run(one.aembed_documents(TEXTS)))
    one.close()


@pytest.mark.parametrize("used_before", [True, False])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_works_and_so_does_its_parent(serve, embedder, used_before):
    one = embedder(serve("vllm"), batch_size=3)
    if used_before:
        assert right(one.embed_documents(TEXTS))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=in_child, args=(one, queue))
    child.start()
    results = [queue.get(timeout=20) for _ in range(2)]
    child.join(20)
    assert child.exitcode == 0
    assert all(right(result) for result in results)
    assert right(one.embed_documents(TEXTS))
    queue.close()
    queue.join_thread()


def test_closing_closes_and_using_again_opens(serve):
    server = serve("vllm")
    with Embedder(server.url, batch_size=3) as one:
        one.embed_documents(TEXTS)
        assert sockets(server)
    assert sockets(server) == []
    assert right(one.embed_documents(TEXTS))
    one.close()
    one.close()
    assert sockets(server) == []


async def test_closing_on_a_loop(serve):
    server = serve("vllm")
    async with Embedder(server.url, batch_size=3) as one:
        await one.aembed_documents(TEXTS)
        assert sockets(server)
    await asyncio.sleep(0)
    assert sockets(server) == []
    assert right(await one.aembed_documents(TEXTS))
    await one.aclose()
    await one.aclose()


def test_an_object_that_is_forgotten_leaves_nothing(serve):
    server = serve("vllm")
    before = set(threading.enumerate())
    one = Embedder(server.url, batch_size=3)
    one.embed_documents(TEXTS)
    del one
    gc.collect()
    assert sockets(server) == []
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("ragpair"):
            thread.join(5)
            assert not thread.is_alive()


# --- cancellation ---


def arrived(server, count):
    while len(server.work) < count:
        time.sleep(0.005)


async def other_tasks():
    await asyncio.sleep(0.01)
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


@pytest.mark.parametrize("batch_size", [1, 100], ids=["many requests", "one request"])
async def test_cancelling_leaves_no_tasks_and_the_object_usable(serve, batch_size):
    server = serve("vllm")
    async with Embedder(server.url, batch_size=batch_size) as one:
        await one.aembed_documents(["warm up"])
        server.fail(Fault.delay(20, times=8))
        task = asyncio.create_task(one.aembed_documents(TEXTS))
        await asyncio.to_thread(arrived, server, 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await other_tasks() == set()
        server.clear()
        assert right(await one.aembed_documents(TEXTS))


async def test_a_timeout_around_a_call(serve):
    server = serve("vllm", task="rerank")
    async with Reranker(server.url, batch_size=1) as one:
        await one.ascore("q", ["warm up"])
        server.fail(Fault.delay(20, times=8))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await one.ascore("q", TEXTS)
        assert await other_tasks() == set()
        server.clear()
        assert (await one.ascore("t3", TEXTS)).argmax() == 3


async def test_cancelled_calls_give_their_places_back(serve):
    server = serve("vllm")
    async with Embedder(server.url, batch_size=1, max_concurrency=2) as one:
        await one.aembed_documents(["warm up"])
        for _ in range(3):
            server.fail(Fault.delay(20, times=2))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(one.aembed_documents(TEXTS), 0.05)
            server.clear()
        assert right(await asyncio.wait_for(one.aembed_documents(TEXTS), 10))


async def test_cancelling_a_waiting_retry(serve):
    server = serve("vllm")
    async with Embedder(server.url) as one:
        await one.aembed_documents(["warm up"])
        server.fail(Fault(status=503, headers={"Retry-After": "30"}, times=None))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.aembed_documents(TEXTS), 0.1)
        assert await other_tasks() == set()


async def test_the_first_error_stops_the_other_tasks(serve):
    server = serve("vllm", latency=0.02)
    async with Embedder(server.url, batch_size=1, max_concurrency=4) as one:
        await one.aembed_documents(["warm up"])
        server.clear()
        server.fail(Fault(400, {"error": {"message": "no"}}))
        with pytest.raises(Exception, match="no"):
            await one.aembed_documents([f"t{n}" for n in range(100)])
        assert await other_tasks() == set()
        assert len(server.work) <= 8


def test_closing_while_another_thread_works(serve):
    server = serve("vllm")
    one = Embedder(server.url, batch_size=1, max_concurrency=2)
    one.embed_documents(["warm up"])
    server.fail(Fault.delay(0.1, times=2))
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(one.embed_documents, TEXTS)
        arrived(server, 2)
        one.close()
        error = working.exception()
    one.close()
    assert error is None or isinstance(error, RagpairError)
