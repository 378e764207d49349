"""What both drivers share: how a request is made, what a fault is, which replica comes next, and when to stop."""

from __future__ import annotations

import contextlib
import ssl
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from operator import length_hint
from typing import Any, TypeVar

import httpx
import orjson

from ragpair.endpoint import Endpoint
from ragpair.errors import ConfigurationError, EndpointUnreachable, RagpairError
from ragpair.retry import Lost
from ragpair.wire import Call, Flow, Gather, Reply

T = TypeVar("T")

CONNECT_TIMEOUT = 5.0
# vLLM drops a connection that was idle for 5 seconds; leave it before that, or the next request meets a dead one.
KEEPALIVE_EXPIRY = 4.0
# A proxy from the environment must not catch requests to this very machine.
_NOT_PROXIED = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"))


@cache
def _tls() -> ssl.SSLContext:
    """One context for all clients: making one costs tens of milliseconds, also for http:// addresses."""
    return httpx.create_ssl_context()


def client_options(endpoint: Endpoint) -> dict[str, Any]:
    """What `httpx.Client` and `httpx.AsyncClient` are made with."""
    headers = dict(endpoint.headers)
    if endpoint.api_key is not None:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    return {
        "mounts": _NOT_PROXIED,
        "headers": headers,
        "timeout": httpx.Timeout(endpoint.timeout, connect=CONNECT_TIMEOUT),
        "limits": httpx.Limits(
            max_connections=None,  # the driver's own limit counts
            max_keepalive_connections=endpoint.max_concurrency * len(endpoint.base_urls),
            keepalive_expiry=KEEPALIVE_EXPIRY,
        ),
        "verify": _tls(),
        "follow_redirects": False,  # a redirect would carry texts and key to a host that nobody named
    }


def request(call: Call) -> dict[str, Any]:
    """The call as the arguments of `client.request`."""
    if call.body is None:
        return {"method": "GET"}
    try:
        content = orjson.dumps(call.body)
    except orjson.JSONEncodeError as exc:
        raise ConfigurationError(
            f"The request to {call.path} cannot be written as JSON ({exc}): check extra_body= and the prompts."
        ) from exc
    return {
        "method": "POST",
        "content": content,
        "headers": {"Content-Type": "application/json"},
    }


def reply(response: httpx.Response, endpoint: str, call: Call) -> Reply:
    """The response as a value."""
    return Reply(response.status_code, response.content, endpoint, call.path, dict(response.headers))


# What a client raises when a call fails; `fault` says what it is.
FAULTS = (httpx.HTTPError, httpx.InvalidURL, UnicodeError, RuntimeError)


def fault(exc: Exception, url: str, *, closed: bool) -> Lost:
    """The fault as a value, if the server may be asked again; raises what no retry would mend."""
    if isinstance(exc, httpx.HTTPError):
        return _lost(exc)
    if isinstance(exc, httpx.InvalidURL | UnicodeError):
        raise ConfigurationError(f"{url!r} cannot be called: {exc}") from exc
    if closed:
        raise closed_meanwhile(url) from exc
    raise exc


def _lost(exc: httpx.HTTPError) -> Lost:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Lost("untrusted", cause.verify_message)
        cause = cause.__cause__ or cause.__context__
    reason = str(exc) or type(exc).__name__
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError | httpx.UnsupportedProtocol):
        return Lost("refused", reason)
    if isinstance(exc, httpx.TimeoutException):
        return Lost("timeout", reason)
    return Lost("dropped", reason)


_CURES = {
    "refused": "Is the server running, and is this its address and port?",
    "dropped": "The server may have died on this input, or a proxy cut it off; its log tells.",
    "timeout": "The server may be loading its model or be overloaded; raise timeout=, or lower batch_size=.",
    "untrusted": "Its TLS certificate is not trusted here; SSL_CERT_FILE names the file of a private authority.",
}


class Replicas:
    """Which replica is asked next: the one with the fewest requests outstanding, not the one that just failed."""

    def __init__(self, base_urls: tuple[str, ...]) -> None:
        self._base_urls = base_urls
        self._outstanding: Counter[str] = Counter()
        self._turn = 0

    @contextlib.contextmanager
    def one(self, failed: set[str]) -> Iterator[str]:
        """The replica to ask, counted as busy for as long as the context lasts."""
        candidates = [url for url in self._base_urls if url not in failed] or list(self._base_urls)
        self._turn += 1  # ties take turns; a lost update under threads does no harm
        start = self._turn % len(candidates)
        url = min(candidates[start:] + candidates[:start], key=lambda u: self._outstanding[u])
        self._outstanding[url] += 1
        try:
            yield url
        finally:
            self._outstanding[url] -= 1


@dataclass(slots=True)
class Attempts:
    """The tries of one call: what is common to both drivers."""

    endpoint: Endpoint
    call: Call
    made: int = 0
    failed: set[str] = field(default_factory=set)

    def judge(self, url: str, outcome: Reply | Lost) -> float | Reply:
        """Seconds to wait before the next try, or the final reply.

        Raises:
            EndpointUnreachable: No answer came, and no try is left.
        """
        self.made += 1
        if isinstance(outcome, Reply) and outcome.ok:
            return outcome
        delay = self.endpoint.retry.delay(self.made, outcome, self.call.resend_after_drop)
        if delay is not None:
            self.failed.add(url)
            return 0.0 if len(self.failed) < len(self.endpoint.base_urls) else delay
        if isinstance(outcome, Reply):
            return outcome
        tries = "once" if self.made == 1 else f"{self.made} times"
        raise EndpointUnreachable(
            f"{url}{self.call.path} gave no answer ({outcome.how}: {outcome.reason}), tried {tries}. "
            f"{_CURES[outcome.how]}",
            endpoint=url,
        )


def closed_meanwhile(url: str) -> EndpointUnreachable:
    """The error of a call whose client somebody else has closed."""
    return EndpointUnreachable(f"the connections to {url} were closed while a call was using them.", endpoint=url)


def width(step: Gather, endpoint: Endpoint) -> int:
    """How many flows of a gathering run at the same time."""
    limit = min(endpoint.max_concurrency, step.in_flight or endpoint.max_concurrency)
    return max(1, min(limit, length_hint(step.flows, limit)))


def advance(flow: Flow[T], answer: Any, error: RagpairError | None) -> Call | Gather:
    """The next step of a flow that is sent an answer, or is thrown an error."""
    return flow.throw(error) if error is not None else flow.send(answer)
