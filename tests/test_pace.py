"""How large requests are: pure, with replies that say how long they took."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragpair.drivers.permits import Permits, at_first
from ragpair.pace import Pace, load
from ragpair.wire import Reply


def took(seconds, in_flight=1, status=200):
    return Reply(status, b"", seconds=seconds, in_flight=in_flight)


def run(pace, server, texts):
    """The sizes of the requests for these texts on a server that takes `server(batch)` seconds."""
    sizes = []
    for batch in pace.batches(list(enumerate(texts))):
        sizes.append(len(batch.items))
        pace.answered(batch.load, took(server(batch)))
    return sizes


@given(st.lists(st.text("ab中", max_size=3000), max_size=60), st.integers(1, 20), st.integers(1, 4))
def test_all_texts_go_once_and_in_order(texts, most, lanes):
    batches = list(Pace(most, lanes).batches(list(enumerate(texts))))
    assert [item for batch in batches for item in batch.items] == list(enumerate(texts))
    assert all(1 <= len(batch.items) <= most for batch in batches)
    assert all(batch.load == sum(load(text) for _, text in batch.items) for batch in batches)


def test_a_fast_server_is_soon_given_all_it_may_hold():
    sizes = run(Pace(1024), lambda batch: 0.015 + 80e-6 * len(batch.items), ["word " * 12] * 20_000)
    assert sizes[0] < 100
    assert sizes[2:-1] == [1024] * len(sizes[2:-1])


def test_a_slow_server_is_never_given_more_than_a_few_seconds_of_work():
    pace, taken = Pace(1024), []

    def server(batch):
        taken.append(0.5 * len(batch.items))
        return taken[-1]

    run(pace, server, ["a passage of a few words. " * 20] * 400)
    assert max(taken) < 10
    assert max(taken[3:]) <= 2.5


def test_long_texts_after_short_ones_are_the_same_work():
    pace = Pace(1024)
    run(pace, lambda batch: batch.load / 4_000, ["short"] * 3000)
    assert max(run(pace, lambda batch: batch.load / 4_000, ["x" * 4000] * 20)) <= 2


def test_what_one_proxy_takes_is_never_passed():
    pace = Pace(1024)
    run(pace, lambda _: 0.0, ["中" * 2000] * 300)
    assert all(batch.load <= 400_000 for batch in pace.batches([(0, "中" * 2000)] * 300))


def test_only_a_queue_without_others_of_ours_makes_requests_smaller():
    pace = Pace(1024)
    pace.refused(8000, took(0, in_flight=3, status=503))
    assert pace.load == 8192
    pace.refused(8000, took(0, in_flight=1, status=503))
    assert pace.load < 8000
    small = pace.load
    for _ in range(100):
        pace.answered(int(pace.load), took(0.001))
    assert small < pace.load < 3 * small  # it is tried again, with care


def test_at_the_end_every_server_has_something_to_do():
    pace = Pace(1024, lanes=3)
    pace.answered(8192, took(0.001))
    sizes = [batch.load for batch in pace.batches([(n, "x" * 436) for n in range(600)])]
    assert len(sizes) >= 3
    assert max(sizes) <= 110_000


# --- permits ---


@pytest.fixture(params=[threading.Semaphore, asyncio.Semaphore])
def free(request):
    """`free(permits)` counts what could be acquired now; `permits` come with it."""
    places = request.param(at_first(8))
    return Permits(places, 8), lambda: places._value


def test_permits_grow_with_answers_to_the_most(free):
    permits, count = free
    grown = []
    for _ in range(6):
        permits.succeeded()
        grown.append(count())
    assert grown == [5, 6, 7, 8, 8, 8]


def test_busy_halves_once_a_round_and_growth_is_slow_after_it(free):
    permits, count = free
    for _ in range(4):
        permits.succeeded()
    assert count() == 8
    permits.busy(sent=1.0, now=2.0)
    permits.busy(sent=1.5, now=2.1)  # sent before the first was known
    assert permits.now == 4
    permits.busy(sent=3.0, now=4.0)
    assert permits.now == 2
    permits.succeeded()
    assert permits.now == 2
    permits.succeeded()
    assert permits.now == 2 or permits.now == 3
