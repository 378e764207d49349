"""What can go wrong with a request, as values: how it is answered, and how the answer is delivered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypedDict, Unpack

PAGE = "<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in to continue</h1></body></html>"

_UNAUTHORIZED: dict[str, Any] = {
    "string": {"error": "Unauthorized"},
    "object": {"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}},
    "text": "Unauthorized",
}


class When(TypedDict, total=False):
    """Which requests a fault is for; see the attributes of `Fault`."""

    times: int | None
    path: str | None
    holding: str | None


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with a request, in place of the right answer or on top of it.

    `Fault(status=503)` answers with an error; the class methods make the others, and take `times`, `path` and `holding`
    too. A fault is for the next requests that embed or score, or with `path` for the next to that path, GET or POST.

    Attributes:
        status: HTTP status; None is what the engine answers.
        body: A string or bytes are sent as they are, anything else as JSON; None is what the engine would say.
        headers: Added to the answer, such as {"Retry-After": "1"}.
        times: How many requests; None is all of them from here on.
        path: Which path.
        holding: Only requests that hold this string somewhere in their JSON: one bad text among good ones.
        content_type: Of `body`.
        change: Makes another reply of the engine's JSON; may change it in place and return None. `edits` has the usual.
        seconds: Wait this long before answering.
        lost: "before" closes the connection without an answer, "half" in the middle of it.
        reset: What is lost, is lost by a TCP reset: the client sees an error in place of an end.
        spread: Send the body in twenty pieces, over so many seconds.
        endless: After the answer's body come blanks, up to 1 GiB, or until the client has enough.
        gzip: Compress the body, as proxies do.
        dies: The server ends with this answer: its port is closed, until it is started again.
    """

    status: int | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int | None = 1
    path: str | None = None
    holding: str | None = None
    content_type: str = "application/json"
    change: Callable[[Any], Any] | None = None
    seconds: float = 0.0
    lost: Literal["before", "half"] | None = None
    reset: bool = False
    spread: float = 0.0
    endless: bool = False
    gzip: bool = False
    dies: bool = False

    # --- connections ---

    @classmethod
    def drop(cls, *, half: bool = False, **when: Unpack[When]) -> Self:
        """The connection is closed without an answer, or with half of one."""
        return cls(lost="half" if half else "before", **when)

    @classmethod
    def cut(cls, *, half: bool = False, **when: Unpack[When]) -> Self:
        """The same by a TCP reset, as of a process that was killed or a firewall."""
        return cls(lost="half" if half else "before", reset=True, **when)

    @classmethod
    def death(cls, status: int | None = 500, **when: Unpack[When]) -> Self:
        """The server answers with this status, or not at all, and ends. From then on connections are refused."""
        return cls(status, lost="before" if status is None else None, dies=True, **when)

    # --- time and size ---

    @classmethod
    def delay(cls, seconds: float, **when: Unpack[When]) -> Self:
        """The right answer, late."""
        return cls(seconds=seconds, **when)

    @classmethod
    def trickle(cls, seconds: float, **when: Unpack[When]) -> Self:
        """The right answer, whose body takes so long to come, a little at a time."""
        return cls(spread=seconds, **when)

    @classmethod
    def flood(cls, *, gzip: bool = False, **when: Unpack[When]) -> Self:
        """The right answer, and then blanks without end: gzipped, they are small on the wire."""
        return cls(endless=True, gzip=gzip, **when)

    @classmethod
    def gzipped(cls, **when: Unpack[When]) -> Self:
        """The right answer, compressed."""
        return cls(gzip=True, **when)

    # --- replies ---

    @classmethod
    def edit(cls, change: Callable[[Any], Any], **when: Unpack[When]) -> Self:
        """The right answer, changed; error answers stay as they are."""
        return cls(change=change, **when)

    @classmethod
    def garbage(cls, data: bytes, content_type: str = "application/json", **when: Unpack[When]) -> Self:
        """Status 200, and these bytes."""
        return cls(200, data, content_type=content_type, **when)

    @classmethod
    def page(cls, status: int = 200, **when: Unpack[When]) -> Self:
        """A web page in place of an answer, as of a proxy that wants a login, or lost its server (502)."""
        return cls(status, PAGE, content_type="text/html; charset=utf-8", **when)

    @classmethod
    def redirect(cls, location: str, status: int = 307, **when: Unpack[When]) -> Self:
        """The answer is elsewhere."""
        return cls(status, "", {"Location": location}, **when)

    @classmethod
    def unauthorized(cls, shape: Literal["string", "object", "text"] = "string", **when: Unpack[When]) -> Self:
        """401, as vLLM and SGLang say it ("string"), llama.cpp and OpenAI ("object"), or proxies ("text")."""
        content_type = "text/plain" if shape == "text" else "application/json"
        return cls(401, _UNAUTHORIZED[shape], content_type=content_type, **when)
