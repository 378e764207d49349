"""Conversations with real servers, played back.

A cassette holds what a server was asked and what it replied. Its replies are evidence, and are played back by method
and path, in the order in which they came. What it was asked proves nothing about the code of today, so each test
asserts what was *sent* on the requests that are made while it runs: `Wire.posts`.

The top of a cassette says where it comes from, in three sorts (`origin`):

    recorded    one conversation of ragpair with one server
    assembled   real replies, put together by hand from several recordings
    written     no server was at hand: written from the engine's source, as the head says
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import orjson
import vcr
import yaml
from vcr.cassette import Cassette
from vcr.persisters.filesystem import FilesystemPersister

from .servers import Server

CASSETTES = Path(__file__).parent / "cassettes"
NOWHERE = "http://server.invalid"  # no such address exists, so nothing can be reached by accident
KEPT_HEADERS = ("content-type", "retry-after", "location")
KEPT_OF_A_REQUEST = 1000  # characters
_LOCAL_FOLDER = re.compile(rb"(?:\.?/[\w.-]+)+/(models|gguf)/")


@dataclass(frozen=True)
class Sent:
    """A request as it left."""

    method: str
    path: str
    body: Any  # decoded JSON; None without a body
    headers: dict[str, str]  # names in lower case


@dataclass
class Wire:
    """One conversation while it is held.

    Attributes:
        url: What to pass as base_url.
        sent: The requests of this run, in the order in which they left.
    """

    url: str
    cassette: Cassette
    sent: list[Sent] = field(default_factory=list)

    @property
    def gets(self) -> list[str]:
        """Paths of the GET requests of this run."""
        return [request.path for request in self.sent if request.method == "GET"]

    @property
    def posts(self) -> list[tuple[str, Any]]:
        """Path and exact JSON body of each POST request of this run."""
        return [(request.path, request.body) for request in self.sent if request.method == "POST"]

    @property
    def replies(self) -> list[Any]:
        """The JSON of all replies of the cassette, in order."""
        return [orjson.loads(response["body"]["string"]) for response in self.cassette.responses]


@contextmanager
def play(name: str, server: Server | None, *, record_mode: str, record_url: str | None) -> Iterator[Wire]:
    """Plays a cassette back, or records it; fails if a reply in it was not asked for.

    Args:
        name: Path below `cassettes`, without the ending.
        server: What it is recorded from; None if it is no recording, and kept by hand.
        record_mode: "none", "once" to record what is missing, or "rewrite" to record over what is there.
        record_url: Address of the server to record from.
    """
    path = CASSETTES / f"{name}.yaml"
    again = record_mode in ("all", "rewrite")
    recording = server is not None and (again or (record_mode != "none" and not path.exists()))
    if recording:
        assert record_url, "RAGPAIR_RECORD_URL must be the address of the server to record from"
        path.unlink(missing_ok=True)
    else:
        assert path.exists(), f"there is no cassette {name}; CONTRIBUTING.md says how to record it"
    recorder = vcr.VCR(
        record_mode="once" if recording else "none",
        match_on=["method", "path"],
        before_record_request=_anonymous,
        before_record_response=_lean,
    )
    recorder.register_serializer("lines", _Lines)
    recorder.register_persister(_WithHead(server))
    with recorder.use_cassette(str(path), serializer="lines") as cassette:
        wire = Wire(record_url if recording and record_url else NOWHERE, cassette)
        with _listening(wire.sent):
            yield wire
    if not recording:
        unused = [f"{r.method} {r.path}" for i, r in enumerate(cassette.requests) if not cassette.play_counts[i]]
        assert not unused, f"{name} holds replies that were not asked for: {unused}"


@contextmanager
def _listening(sent: list[Sent]) -> Iterator[None]:
    """Notes every request that passes httpx's transports, retries included."""
    sync, awaited = httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request

    def note(request: httpx.Request) -> None:
        body = orjson.loads(request.content) if request.content else None
        sent.append(Sent(request.method, request.url.raw_path.decode(), body, dict(request.headers)))

    def handle(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        note(request)
        return sync(self, request)

    async def handle_async(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        note(request)
        return await awaited(self, request)

    with (
        patch.object(httpx.HTTPTransport, "handle_request", handle),
        patch.object(httpx.AsyncHTTPTransport, "handle_async_request", handle_async),
    ):
        yield


# --- what is kept of a conversation ----------------------------------------------------------------------------------


def _anonymous(request: Any) -> Any:
    """Neither host nor key nor the client's headers, and of a long body the beginning: nothing reads it again."""
    request.uri = NOWHERE + request.path
    request.headers = {}
    text = (request.body or b"").decode()
    if len(text) > KEPT_OF_A_REQUEST:
        request.body = f"{text[:KEPT_OF_A_REQUEST]}… ({len(text)} characters)"
    return request


def _lean(response: dict[str, Any]) -> dict[str, Any]:
    """The headers that a client reads; no folder of the machine that recorded."""
    kept = {key.lower(): values for key, values in response["headers"].items() if key.lower() in KEPT_HEADERS}
    body = _LOCAL_FOLDER.sub(rb"\1/", response["body"]["string"])
    return {"status": response["status"], "headers": kept, "body": {"string": body}}


class _WithHead(FilesystemPersister):
    """Files that begin with where they come from."""

    def __init__(self, server: Server | None) -> None:
        self.server = server

    def save_cassette(self, cassette_path: str, cassette_dict: dict[str, Any], serializer: Any) -> None:
        assert self.server is not None
        path = Path(cassette_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        head = yaml.dump({"origin": "recorded", **self.server.head()}, sort_keys=False, width=116)
        path.write_text(head + vcr.serialize.serialize(cassette_dict, serializer))


class _Lines:
    """YAML with each body on one line."""

    @staticmethod
    def deserialize(text: str) -> Any:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))

    @staticmethod
    def serialize(content: Any) -> str:
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10**9)
