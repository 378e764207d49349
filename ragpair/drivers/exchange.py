"""One request and its answer, in the HTTP library's terms: the only module, with the loops, that knows it.

Requests are built here and not by the client, whose merging of URLs, headers and cookies costs as much as sending them.
Bodies are read as they come, so that neither their size nor their slowness is the server's to choose.
"""

from __future__ import annotations

import ssl
import time
from functools import cache, lru_cache
from typing import Any

import httpx
import orjson

from ragpair.endpoint import Endpoint
from ragpair.errors import ConfigurationError, EndpointUnreachable, MalformedReply
from ragpair.retry import Lost
from ragpair.wire import Call, Reply

CONNECT_TIMEOUT = 5.0
# vLLM drops a connection that was idle for 5 seconds; leave it before that, or the next request meets a dead one.
KEEPALIVE_EXPIRY = 4.0
# The largest honest reply, 1,024 vectors of 8,192 numbers in JSON with a double's digits, is less.
MAX_REPLY_BYTES = 256 * 2**20
# A proxy from the environment must not catch requests to this very machine.
_NOT_PROXIED = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"))


@cache
def _tls() -> ssl.SSLContext:
    """One context for all clients: making one costs tens of milliseconds, also for http:// addresses."""
    return httpx.create_ssl_context()


def client_options(endpoint: Endpoint) -> dict[str, Any]:
    """What `httpx.Client` and `httpx.AsyncClient` are made with."""
    return {
        "mounts": _NOT_PROXIED,
        "timeout": httpx.Timeout(endpoint.timeout, connect=CONNECT_TIMEOUT),
        "limits": httpx.Limits(
            max_connections=None,  # the driver's own limit counts
            max_keepalive_connections=endpoint.max_concurrency * len(endpoint.base_urls),
            keepalive_expiry=KEEPALIVE_EXPIRY,
        ),
        "verify": _tls(),
        "follow_redirects": False,  # a redirect would carry texts and key to a host that nobody named
    }


def headers(endpoint: Endpoint) -> httpx.Headers:
    """What goes with every request. Vectors do not compress, so none of their bytes need be unpacked."""
    made = httpx.Headers(
        {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "ragpair",
        }
    )
    made.update(endpoint.headers)
    if endpoint.api_key is not None:
        made["Authorization"] = f"Bearer {endpoint.api_key}"
    return made


@lru_cache(maxsize=256)
def _url(text: str) -> httpx.URL:
    return httpx.URL(text)


def request(url: str, call: Call, headers: httpx.Headers) -> httpx.Request:
    """The call as a request.

    Raises:
        ConfigurationError: It cannot be written, or there is no such address.
    """
    try:
        address = _url(url + call.path)
    except (httpx.InvalidURL, UnicodeError) as exc:
        raise ConfigurationError(f"{url!r} cannot be called: {exc}") from exc
    if call.body is None:
        return httpx.Request("GET", address, headers=headers)
    try:
        content = orjson.dumps(call.body)
    except orjson.JSONEncodeError as exc:
        raise ConfigurationError(
            f"The request to {call.path} cannot be written as JSON ({exc}): check extra_body= and the prompts."
        ) from exc
    return httpx.Request("POST", address, headers=headers, content=content)


class Body:
    """The bytes of one answer, as they come.

    Args:
        response: The answer, not yet read.
        url: Base URL of the server.
        call: What was asked.
        started: When it was sent, by `time.perf_counter`.
        timeout: Seconds that all of it may take.
    """

    def __init__(self, response: httpx.Response, url: str, call: Call, started: float, timeout: float) -> None:
        self._response, self._url, self._call = response, url, call
        self._started, self._timeout = started, timeout
        self._chunks: list[bytes] = []
        self._size = 0
        announced = response.headers.get("content-length", "")
        if announced.isdecimal():
            self._check_size(int(announced))

    def add(self, chunk: bytes) -> None:
        """Take a piece.

        Raises:
            MalformedReply: It is more than any honest answer.
            httpx.ReadTimeout: It trickles.
        """
        self._size += len(chunk)
        self._check_size(self._size)
        self._chunks.append(chunk)
        if time.perf_counter() - self._started > self._timeout:
            raise httpx.ReadTimeout(f"the answer was still coming after {self._timeout:g} s")

    def _check_size(self, size: int) -> None:
        if size > MAX_REPLY_BYTES:
            raise MalformedReply(
                f"{self._url}{self._call.path} answered with more than {MAX_REPLY_BYTES:,} bytes, which no answer to "
                "this request needs; the rest was not read. Is this the address of the model server itself?",
                endpoint=self._url,
            )

    def reply(self, in_flight: int) -> Reply:
        """The whole answer as a value."""
        response, chunks = self._response, self._chunks
        return Reply(
            response.status_code,
            chunks[0] if len(chunks) == 1 else b"".join(chunks),
            self._url,
            self._call.path,
            response.headers,
            time.perf_counter() - self._started,
            in_flight,
        )


# What a client raises when a call fails; `fault` says what it is.
FAULTS = (httpx.HTTPError, httpx.InvalidURL, UnicodeError, RuntimeError)


def fault(exc: Exception, url: str, *, closed: bool) -> Lost:
    """The fault as a value, if the server may be asked again; raises what no retry would mend."""
    if closed:
        raise EndpointUnreachable(
            f"the connections to {url} were closed while a call was using them.", endpoint=url
        ) from exc
    if isinstance(exc, httpx.HTTPError):
        return _lost(exc)
    if isinstance(exc, httpx.InvalidURL | UnicodeError):
        raise ConfigurationError(f"{url!r} cannot be called: {exc}") from exc
    raise exc


# As OpenSSL calls what is no TLS, before 3.2 and since.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})


def _lost(exc: httpx.HTTPError) -> Lost:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Lost("untrusted", cause.verify_message)
        if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
            return Lost("no tls", "what came back is no TLS")
        cause = cause.__cause__ or cause.__context__
    reason = str(exc) or type(exc).__name__
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError | httpx.UnsupportedProtocol):
        return Lost("refused", reason)
    if isinstance(exc, httpx.TimeoutException):
        return Lost("timeout", reason)
    return Lost("dropped", reason)
