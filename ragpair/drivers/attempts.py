"""The tries of one call: which server is next, and when to stop. What is common to both drivers."""

from __future__ import annotations

from dataclasses import dataclass, field

from ragpair.drivers.replicas import Replica, Replicas
from ragpair.endpoint import Endpoint
from ragpair.errors import EndpointUnreachable
from ragpair.retry import BUSY, Lost
from ragpair.wire import Call, Reply

_CURES = {
    "refused": "Is the server running, and is this its address and port?",
    "dropped": "The server may have died on this input, or a proxy cut it off; its log tells.",
    "timeout": "The server may be loading its model or be overloaded; raise timeout=, or lower batch_size=.",
    "untrusted": "Its TLS certificate is not trusted here; SSL_CERT_FILE names the file of a private authority.",
    "no tls": "Something answers there, but not in TLS: write http:// in place of https:// in base_url=, or in "
    "HTTPS_PROXY if that names a proxy without TLS.",
}

# The outcome for a replica that was asked who it is, and was not found to be one.
LEFT_OUT = Lost("refused", "it was away, and has not come back as the same server")


@dataclass(slots=True)
class Attempts:
    """The tries of one call.

    Going on to another replica is no retry where the first one did not begin the work: it costs nobody anything. A
    connection that died is different, since the request may be what killed the server.
    """

    endpoint: Endpoint
    replicas: Replicas
    call: Call
    made: int = 0
    retries: int = 0
    failed: set[str] = field(default_factory=set)
    last: Reply | Lost | None = None

    def choose(self) -> Replica:
        """Who is asked next."""
        return self.replicas.choose(self.call, self.failed)

    def judge(self, one: Replica, outcome: Reply | Lost) -> float | Reply:
        """Seconds to wait before the next try, or the final reply.

        Raises:
            EndpointUnreachable: No answer came, and no try is left.
        """
        if isinstance(outcome, Reply) and outcome.ok:
            return outcome
        self.made += 1
        self.last = outcome
        self.failed.add(one.url)
        others = self.call.replica is None and len(self.failed) < len(self.replicas)
        if others and _not_begun(outcome):
            return 0.0
        self.retries += 1
        delay = self.endpoint.retry.delay(self.retries, outcome, self.call)
        if delay is not None:
            if not others:
                self.failed.clear()
            return 0.0 if others else delay
        if isinstance(outcome, Reply):
            return outcome
        tries = "once" if self.made == 1 else f"{self.made} times"
        raise EndpointUnreachable(
            f"{one.url}{self.call.path} gave no answer ({outcome.how}: {outcome.reason}), tried {tries}. "
            f"{_CURES[outcome.how]}",
            endpoint=one.url,
        )


def _not_begun(outcome: Reply | Lost) -> bool:
    if isinstance(outcome, Lost):
        return outcome.how in ("refused", "untrusted", "no tls")
    return outcome.status in BUSY
