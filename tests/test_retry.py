"""When to send again. Pure: no server, no clock but for Retry-After dates."""

import random
import time
from dataclasses import replace
from email.utils import formatdate

import pytest

from ragpair.retry import Lost, RetryPolicy
from ragpair.wire import Call, Reply

POLICY = RetryPolicy(max_retries=3)
CALL = Call("/v1/embeddings", {})


def reply(status, body=b"", **headers):
    return Reply(status, body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def tries(outcome, policy=POLICY, **call):
    """How many requests are made if each of them ends the same way."""
    made = 1
    while policy.delay(made, outcome, replace(CALL, **call)) is not None:
        made += 1
        assert made < 100
    return made


@pytest.mark.parametrize("status", [408, 429, 499, 502, 503, 504])
def test_busy_servers_are_asked_again(status):
    assert tries(reply(status)) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422, 501, 301, 307])
def test_refusals_are_final(status):
    assert tries(reply(status)) == 1


@pytest.mark.parametrize("words", ["The engine is busy and cannot accept new requests.", "The request queue is full."])
def test_a_full_queue_refuses_a_batch_once_more_and_a_single_text_to_the_end(words):
    assert tries(reply(503, words.encode()), divisible=True) == 2
    assert tries(reply(503, words.encode())) == 4


def test_a_500_gets_one_more_chance():
    assert tries(reply(500, b'{"error": "out of memory"}')) == 2


@pytest.mark.parametrize(
    "words",
    [
        b"input (602 tokens) is too large to process. increase the physical batch size",
        b"the current context does not support logits computation. skipping",
        b"this model does not support embeddings",
    ],
)
def test_a_500_that_will_never_work_gets_none(words):
    assert tries(reply(500, b'{"error": {"message": "' + words + b'"}}')) == 1


@pytest.mark.parametrize(
    ("how", "drops_allowed", "made"),
    [
        ("refused", None, 4),
        ("dropped", None, 4),
        ("dropped", 1, 2),
        ("dropped", 0, 1),
        ("dropped", 9, 4),
        ("refused", 1, 4),
        ("timeout", None, 2),
        ("untrusted", None, 1),
    ],
)
def test_lost_answers(how, drops_allowed, made):
    assert tries(Lost(how, "why"), resend_after_drop=drops_allowed) == made


@pytest.mark.parametrize("outcome", [reply(503), reply(500), Lost("refused", ""), Lost("timeout", "")])
def test_zero_retries_is_zero(outcome):
    assert tries(outcome, policy=RetryPolicy(max_retries=0)) == 1


def test_waits_double_up_to_a_cap_and_are_shortened_at_random():
    policy = RetryPolicy(max_retries=10, base=1.0, cap=5.0)
    for attempt, longest in enumerate([1, 2, 4, 5, 5, 5], start=1):
        waits = {policy.delay(attempt, reply(503), CALL) for _ in range(50)}
        assert len(waits) > 1
        assert longest * 0.75 <= min(waits) <= max(waits) <= longest


def test_the_programs_own_random_numbers_stay_those_of_its_seed():
    before = random.getstate()
    assert POLICY.delay(1, reply(503), CALL) is not None
    assert random.getstate() == before


def test_retry_after_in_seconds_is_obeyed():
    assert POLICY.delay(1, reply(429, retry_after="7"), CALL) == 7.0
    assert POLICY.delay(1, reply(503, retry_after="0.5"), CALL) == 0.5
    assert POLICY.delay(1, reply(503, retry_after="-3"), CALL) == 0.0


def test_retry_after_as_a_date_is_obeyed():
    wait = POLICY.delay(1, reply(503, retry_after=formatdate(time.time() + 20, usegmt=True)), CALL)
    assert wait == pytest.approx(20, abs=2)
    assert POLICY.delay(1, reply(503, retry_after=formatdate(time.time() - 500, usegmt=True)), CALL) == 0.0


@pytest.mark.parametrize("value", ["soon", "", "1;2", "nan"])
def test_retry_after_that_is_nonsense_is_not(value):
    wait = POLICY.delay(1, reply(503, retry_after=value), CALL)
    assert wait is not None
    assert wait <= POLICY.base


@pytest.mark.parametrize("value", ["61", "86400", "inf"])
def test_nobody_waits_longer_than_their_patience(value):
    assert POLICY.delay(1, reply(503, retry_after=value), CALL) is None


def test_retry_after_does_not_revive_a_refusal():
    assert POLICY.delay(1, reply(400, retry_after="1"), CALL) is None
    assert POLICY.delay(4, reply(503, retry_after="1"), CALL) is None
