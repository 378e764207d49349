"""Ctrl-C, the end of the interpreter, replicas that come and go: nothing hangs, nothing leaks, nothing is lost."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ragpair import ConfigurationError, Embedder, RagpairWarning
from ragpair.drivers.replicas import Replicas
from ragpair.retry import Lost
from ragpair.testing import Fault
from ragpair.testing.model import embed
from ragpair.wire import Call, Reply

TEXTS = [f"t{n}" for n in range(12)]


def script(code, server, **options):
    """A fresh interpreter in which every warning is an error."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


WAITING = """
import sys
from ragpair import Embedder
one = Embedder(sys.argv[1], batch_size=1)
one.embed_documents(["warm up"])
print("ready", flush=True)
try:
    one.embed_documents([f"t{n}" for n in range(12)])
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_ends_a_call_that_waits_and_the_interpreter(serve):
    server = serve("vllm")
    server.fail(Fault(holding="warm up"), Fault.delay(60, times=None))
    child = script(WAITING, server)
    assert child.stdout.readline() == "ready\n"
    while len(server.work) < 3:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (out, err, child.returncode) == ("interrupted\n", "", 0)


@pytest.mark.parametrize(
    "code",
    [
        "one.embed_documents(['a', 'b', 'c'])",
        "import asyncio; asyncio.run(one.aembed_documents(['a', 'b', 'c']))",
        "next(iter(one.embed_documents_iter(map(str, range(10_000)))))",
        """
import asyncio
pairs = one.aembed_documents_iter(map(str, range(99)))
async def first():
    await anext(pairs)
asyncio.run(first())""",
    ],
    ids=["sync", "async", "iterator", "async iterator"],
)
def test_an_interpreter_ends_without_a_word_though_nothing_was_closed(serve, code):
    preamble = "import sys; from ragpair import Embedder; one = Embedder(sys.argv[1], batch_size=1)"
    out, err = script(f"{preamble}\n{code}", serve("vllm")).communicate(timeout=30)
    assert (out, err) == ("", "")


def test_the_first_error_does_not_wait_for_the_others(serve):
    server = serve("vllm")
    with Embedder(server.url, batch_size=1) as one:
        one.embed_documents(["warm up"])
        server.fail(Fault(400, {"error": {"message": "no"}}, holding="t1", times=None))
        server.fail(Fault.delay(30, times=None))
        begin = time.monotonic()
        with pytest.raises(Exception, match="no"):
            one.embed_documents(["t1", "t2", "t3"])
        assert time.monotonic() - begin < 20


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_lock_held_at_a_fork_does_not_stop_the_child(serve):
    """The child's memories begin anew, so no lock of another thread of the parent can be left in it."""
    one = Embedder([serve("vllm").url, serve("vllm").url], batch_size=3)
    one.embed_documents(TEXTS)
    with one._replicas._lock:
        pid = os.fork()
        if pid == 0:
            ok = np.allclose(one.embed_documents(TEXTS), [embed(text, 64) for text in TEXTS], atol=1e-6)
            os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    one.close()


# --- replicas that come and go ---


def awake(one):
    """The rests are over, and no replica is remembered as slow: in a moment's hiccup one of them may have been."""
    for replica in one._replicas._all.values():
        replica.rests_until, replica.cost = 0.0, None


def test_one_that_comes_back_is_given_work_again(serve, embedder, call):
    servers = [serve("vllm"), serve("vllm")]
    one = embedder([server.url for server in servers], batch_size=1)
    call(one, "embed_documents", TEXTS)
    servers[0].stop()
    awake(one)
    np.testing.assert_allclose(call(one, "embed_documents", TEXTS), [embed(text, 64) for text in TEXTS], atol=1e-6)
    servers[0].start()
    awake(one)
    servers[0].clear()
    for _ in range(3):
        awake(one)
        call(one, "embed_documents", TEXTS)
    assert len(servers[0].work) > 3


def test_one_that_comes_back_as_another_model_is_left_out_with_a_warning(serve, embedder, call):
    servers = [serve("vllm"), serve("vllm")]
    one = embedder([server.url for server in servers], batch_size=1)
    call(one, "embed_documents", TEXTS)
    servers[0].stop()
    awake(one)
    call(one, "embed_documents", TEXTS)
    servers[0].start()
    servers[0].fail(Fault(status=None, change=lambda reply: reply["data"][0].update(embedding=[0.5] * 4), times=None))
    awake(one)
    with pytest.warns(RagpairWarning, match=f"{servers[0].url} is left out"):
        vectors = call(one, "embed_documents", TEXTS)
    np.testing.assert_allclose(vectors, [embed(text, 64) for text in TEXTS], atol=1e-6)


def test_a_slow_one_gets_less_work(serve, embedder, call):
    fast, slow = serve("vllm", latency=0.002), serve("vllm", latency=0.08)
    one = embedder([fast.url, slow.url], batch_size=1, max_concurrency=4)
    call(one, "embed_documents", [f"t{n}" for n in range(150)])
    assert len(fast.work) > 3 * len(slow.work)


def test_rerankers_of_other_weights_are_no_replicas(serve, reranker, call):
    servers = [serve("vllm", task="rerank"), serve("vllm", task="rerank")]

    def other(reply):
        for row in reply["data"]:
            row["score"] = row["score"] * 0.5 + 0.2

    servers[1].fail(Fault.edit(other, times=None))
    with pytest.raises(ConfigurationError, match="not replicas of one model"):
        call(reranker([server.url for server in servers]), "score", "q", ["d"])


CALL = Call("/v1/embeddings", {}, load=1000)


def answered(pool, one, seconds):
    pool.note(one, CALL, Reply(200, b"", one.url, seconds=seconds), CALL.load)


def test_rests_grow_with_failures_and_end_with_an_answer():
    pool = Replicas(("http://a", "http://b"))
    one = pool.choose(Call("/", replica="http://a"), set())
    rests = []
    for _ in range(9):
        pool.note(one, CALL, Lost("timeout", "why"), CALL.load)
        rests.append(round(one.rests_until - time.monotonic(), 1))
    assert rests == sorted(rests)
    assert rests[0] < 1 < 29 < rests[-1] <= 30
    assert {pool.choose(CALL, set()).url for _ in range(4)} == {"http://b"}
    answered(pool, one, 0.1)
    assert {pool.choose(CALL, set()).url for _ in range(4)} == {"http://a", "http://b"}


def test_when_all_rest_the_one_that_rests_least_is_asked():
    pool = Replicas(("http://a", "http://b"))
    for url, times in (("http://a", 3), ("http://b", 1)):
        for _ in range(times):
            pool.rest(pool.choose(Call("/", replica=url), set()))
    assert pool.choose(CALL, set()).url == "http://b"


def test_a_server_says_how_long_it_wants_to_rest():
    pool = Replicas(("http://a", "http://b"))
    one = pool.choose(Call("/", replica="http://a"), set())
    pool.note(one, CALL, Reply(503, b"", headers={"retry-after": "7"}), CALL.load)
    assert 6 < one.rests_until - time.monotonic() <= 7


def test_the_memory_of_a_slow_answer_fades(monkeypatch):
    pool = Replicas(("http://a", "http://b"))
    slow, fast = (pool.choose(Call("/", replica=url), set()) for url in ("http://a", "http://b"))
    answered(pool, slow, 5.0)
    answered(pool, fast, 0.1)
    with pool.asking(fast, CALL):
        assert pool.choose(CALL, set()) is fast
        slow.measured -= 300
        assert pool.choose(CALL, set()) is slow


def test_one_slow_answer_is_forgotten_by_the_next_when_it_is_long_past(monkeypatch):
    """The first request to a server that has just started may take a hundred times as long as those after it."""
    pool = Replicas(("http://a", "http://b"))
    warming, warm = (pool.choose(Call("/", replica=url), set()) for url in ("http://a", "http://b"))
    answered(pool, warming, 10.0)
    warming.measured -= 150
    answered(pool, warming, 0.1)
    answered(pool, warm, 0.1)
    with pool.asking(warm, CALL):
        assert pool.choose(CALL, set()) is warming
