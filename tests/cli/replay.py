"""Recorded servers for a client that asks other questions than the one that was recorded.

A cassette of `tests/wire` is played back by method and path: the replies to one path in their order, the last one over
and over, and 404 for all that nobody asked when it was recorded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import httpx
import yaml

URL = "http://server.invalid"
CASSETTES = Path(__file__).parents[1] / "wire" / "cassettes"


@contextmanager
def played(name: str) -> Iterator[str]:
    """The address at which the cassette answers."""
    replies: dict[tuple[str, str], list[httpx.Response]] = {}
    for entry in yaml.safe_load((CASSETTES / f"{name}.yaml").read_text(encoding="utf-8"))["interactions"]:
        request, response = entry["request"], entry["response"]
        headers = {key: values[0] for key, values in response["headers"].items()}
        body = response["body"]["string"]
        one = httpx.Response(response["status"]["code"], headers=headers, content=body.encode())
        replies.setdefault((request["method"], request["uri"].removeprefix(URL)), []).append(one)

    def handle(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        known = replies.get((request.method, request.url.path))
        if known is None:
            return httpx.Response(404, json={"detail": "Not Found"})
        return known.pop(0) if len(known) > 1 else known[0]

    with patch.object(httpx.HTTPTransport, "handle_request", handle):
        yield URL
