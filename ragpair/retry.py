"""When to send again: a pure decision, `RetryPolicy.delay(attempt, outcome) -> seconds | None`.

Every call that ragpair makes may be repeated safely: it computes, it changes nothing on the server. What must not be
repeated is a request that the server has refused for what it is (400, 401, 404, 501), and one that may have killed it.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Literal

from ragpair.errors import ConfigurationError
from ragpair.wire import Call, Reply

# Has no state: a program's own random numbers stay those of its seed, and forked clients do not return together.
_DICE = random.SystemRandom()

# A server that is full or starting, or the proxy in front of one.
BUSY = frozenset({408, 429, 499, 502, 503, 504})

# Refusals that may be for one of the texts; those of the key, the route or the model are not.
OF_A_TEXT = frozenset({400, 413, 422, 500})

_FULL_QUEUE = (b"cannot accept new requests", b"queue is full")

# llama.cpp and Ollama answer 500 to requests that will never work; these words tell them from real faults.
_HOPELESS_500 = (b"too large to process", b"does not support", b"logits")


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer came.

    Attributes:
        how: "refused" (nobody listens, or no route), "dropped" (the connection died before the answer was complete),
            "timeout" (connected, but no answer in time), "untrusted" (the TLS certificate was not accepted) or
            "no tls" (it answers, but not in TLS).
        reason: One line for the message.
    """

    how: Literal["refused", "dropped", "timeout", "untrusted", "no tls"]
    reason: str


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try again, and how long to wait before.

    Waits double from `base` to `cap` seconds and are shortened at random by up to a quarter, so that clients do not
    return together. A Retry-After of the server is obeyed up to `patience` seconds; beyond that we give up at once.
    """

    max_retries: int = 3
    base: float = 0.25
    cap: float = 8.0
    patience: float = 60.0

    def __post_init__(self) -> None:
        if not isinstance(self.max_retries, int) or self.max_retries < 0:
            raise ConfigurationError(f"max_retries must be a whole number from 0, not {self.max_retries!r}.")

    def delay(self, attempt: int, outcome: Reply | Lost, call: Call) -> float | None:
        """Seconds to wait before the next try, or None to stop here.

        Args:
            attempt: Tries made so far, 1 after the first.
            outcome: What the last try brought.
            call: What was sent.
        """
        if call.replica is not None or attempt > min(self.max_retries, self._allowed(outcome, call)):
            return None
        if isinstance(outcome, Reply) and (asked := retry_after(outcome)) is not None:
            return asked if asked <= self.patience else None
        return float(min(self.cap, self.base * 2 ** (attempt - 1)) * _DICE.uniform(0.75, 1.0))

    def _allowed(self, outcome: Reply | Lost, call: Call) -> int:
        if isinstance(outcome, Lost):
            if outcome.how in ("untrusted", "no tls"):
                return 0
            if outcome.how == "timeout":
                return 1  # the server may still be computing the first one
            if outcome.how == "dropped" and call.resend_after_drop is not None:
                return call.resend_after_drop
            return self.max_retries
        if call.divisible and queue_is_full(outcome):
            return 1  # it may hold more texts than the queue ever will; others may have filled it, too
        if outcome.status in BUSY:
            return self.max_retries
        if outcome.status == 500:
            return 0 if any(words in outcome.body for words in _HOPELESS_500) else 1
        return 0


def queue_is_full(reply: Reply) -> bool:
    """Whether vLLM or SGLang refused a request because their queue, where each text counts, has no room for it."""
    return reply.status == 503 and any(words in reply.body for words in _FULL_QUEUE)


def retry_after(reply: Reply) -> float | None:
    """The Retry-After header in seconds; it may be a number or an HTTP date."""
    from email.utils import parsedate_to_datetime  # late: slow to import, and hardly ever needed

    value = reply.headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
