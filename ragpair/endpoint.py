"""Where the model is served, and how to talk to it: values only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ragpair.errors import ConfigurationError
from ragpair.retry import RetryPolicy

LOCAL = "local"

# People paste what worked in curl; the route is ours to add.
_ROUTE = re.compile(r"(/v1|/v2|/api)?(/(embeddings|embed|rerank|score|models|generate|classify))?/*$")

_SECRET_INSIDE = (
    "base_url holds a user name or password, which would show in messages and logs. Pass api_key=, or "
    "headers={'Authorization': ...}, instead."
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One model, served at one address or at several.

    Attributes:
        base_urls: Roots of the server and its replicas, without "/v1"; ("local",) is the embedded engine.
        api_key: Sent as `Authorization: Bearer`; never shown.
        headers: Extra headers for gateways; never shown, since they may hold secrets.
        timeout: Seconds to wait for one answer.
        max_concurrency: Requests in flight at most, over all threads or tasks that share the object.
        retry: When to send again.
    """

    base_urls: tuple[str, ...]
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 120.0
    max_concurrency: int = 8
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        if not isinstance(self.max_concurrency, int) or self.max_concurrency < 1:
            raise ConfigurationError(f"max_concurrency must be a whole number from 1, not {self.max_concurrency!r}.")
        if not isinstance(self.timeout, int | float) or not self.timeout > 0:
            raise ConfigurationError(f"timeout must be a positive number of seconds, not {self.timeout!r}.")
        if self.api_key is not None and not _fits_a_header(self.api_key):
            raise ConfigurationError(
                "api_key is empty, or holds a line break, an outer space or another character that no HTTP header can "
                "carry. If it was read from a file, strip() it; if there is none, pass None."
            )
        if self.api_key is not None and self.api_key.lower().startswith("bearer "):
            raise ConfigurationError('api_key begins with "Bearer ", which ragpair adds by itself: pass the key alone.')
        for name, value in self.headers.items():
            if not _fits_a_header(value):
                raise ConfigurationError(f"The value of header {name!r} holds what no HTTP header can carry.")

    @property
    def is_local(self) -> bool:
        """Whether this is the embedded engine, in process."""
        return self.base_urls == (LOCAL,)

    def at_once(self, in_flight: int | None) -> int:
        """Requests at the same time at most, where a call may want fewer than are allowed."""
        return min(self.max_concurrency, in_flight or self.max_concurrency)

    @property
    def shown(self) -> str:
        """The address for messages."""
        return ", ".join(self.base_urls)


def _fits_a_header(value: object) -> bool:
    """What does not would come back in the HTTP library's error message, secrets included."""
    return isinstance(value, str) and value.isascii() and value.isprintable() and value != "" and value == value.strip()


def parse_base_urls(base_url: str | Sequence[str]) -> tuple[str, ...]:
    """One URL or several, as people type them, to roots without a trailing "/v1" or route.

    "localhost:11434" gets "http://"; 0.0.0.0, which is where a server listens, becomes 127.0.0.1, which is where one
    calls it.

    Raises:
        ConfigurationError: Empty, not http(s), or with a password inside.
    """
    given = list(base_url) if isinstance(base_url, Sequence) and not isinstance(base_url, str | bytes) else [base_url]
    if not given:
        raise ConfigurationError("base_url is empty: pass the address of the server, or 'local' for the embedded one.")
    urls = tuple(dict.fromkeys(_parse_one(url) for url in given))
    if LOCAL in urls and len(urls) > 1:
        raise ConfigurationError("base_url='local' is the embedded engine; it cannot be mixed with servers.")
    return urls


def _parse_one(url: object) -> str:
    if not isinstance(url, str) or not url.strip():
        raise ConfigurationError(f"base_url must be an address such as 'http://localhost:8000', not {url!r}.")
    url = url.strip()
    if url == LOCAL:
        return LOCAL
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        if "@" in url:  # a password with a slash in it looks like a port; exc would show it
            raise ConfigurationError(_SECRET_INSIDE) from None
        raise ConfigurationError(f"base_url {url!r} is no address: {exc}.") from exc
    if parts.username or parts.password:
        raise ConfigurationError(_SECRET_INSIDE)
    if parts.query or parts.fragment:
        raise ConfigurationError(
            "base_url holds something after a '?' or '#', which is no part of a server's address. A key belongs in "
            "api_key= or headers=."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"base_url must be an http or https address, not {url!r}.")
    host = "127.0.0.1" if parts.hostname == "0.0.0.0" else parts.hostname
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{_ROUTE.sub('', parts.path.rstrip('/'))}"
