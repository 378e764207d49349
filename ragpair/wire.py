"""What crosses between pure code and I/O: a Call goes out, a Reply comes back, and a Flow is the conversation.

A flow is a plain generator. It yields a `Call` and is sent its `Reply`; or it yields a `Gather`, several flows that
may run at the same time, and is sent the list of their results. It returns the result of the whole conversation.
Flows know nothing of HTTP, threads or event loops; `drivers` knows nothing of embeddings. Errors of a call or of a
gathered flow are thrown into the flow at its `yield`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import orjson

from ragpair.errors import MalformedReply, RagpairError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, not yet sent.

    Attributes:
        path: Absolute path on the server, such as "/v1/embeddings".
        body: JSON object to POST; None makes it a GET.
        resend_after_drop: How often it may be sent again when the connection dies without an answer. None leaves it
            to the retry policy; engines that a bad input can kill allow one.
        replica: Base URL of the one server that it is for, which is asked once; None leaves it to the driver.
        load: How much work it is, in about the bytes of its texts; compared between calls only.
        divisible: It holds several texts, so that a refusal for its size should come back rather than be tried again.
    """

    path: str
    body: Mapping[str, Any] | None = None
    resend_after_drop: int | None = None
    replica: str | None = None
    load: int = 0
    divisible: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, whatever its status.

    Attributes:
        status: HTTP status.
        body: The bytes as they came.
        endpoint: Base URL of the server that answered.
        path: Path that was called.
        headers: Header names in lower case.
        seconds: From sending to the last byte.
        in_flight: Requests that this server was working on for us when it was sent, this one included.
    """

    status: int
    body: bytes
    endpoint: str = ""
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    in_flight: int = 1

    @property
    def ok(self) -> bool:
        """Whether the status is 200."""
        return self.status == 200

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            MalformedReply: It is no JSON; the message shows how it begins.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as exc:
            raise MalformedReply(
                f"{self.endpoint}{self.path} answered {self.status} with something that is not JSON: "
                f"{excerpt(self.body)!r}. Is this the address of the model server itself, "
                "not of a proxy or a web page?",
                endpoint=self.endpoint,
            ) from exc


@dataclass(frozen=True, slots=True)
class Gather:
    """Flows that may run at the same time; the answer is the list of their results, in this order.

    The iterable is consumed lazily, as places become free. The first error stops the others.

    Attributes:
        flows: They must not gather themselves.
        in_flight: How many at the same time at most, if less than the driver's own limit.
    """

    flows: Iterable[Flow[Any]]
    in_flight: int | None = None


Flow = Generator[Call | Gather, Any, T]


def send(call: Call) -> Flow[Reply]:
    """A `yield` with types, for `yield from`: sends the call, returns its reply."""
    reply: Reply = yield call
    return reply


def gather(flows: Iterable[Flow[T]], in_flight: int | None = None) -> Flow[list[T]]:
    """A `yield` with types, for `yield from`: runs the flows, returns their results in order."""
    results: list[T] = yield Gather(flows, in_flight)
    return results


def advance(flow: Flow[T], answer: Any, error: RagpairError | None) -> Call | Gather:
    """The next step of a flow that is sent an answer, or is thrown an error; StopIteration holds its result."""
    return flow.throw(error) if error is not None else flow.send(answer)


def pinned(flow: Flow[T], replica: str) -> Flow[T]:
    """The flow, with all its calls sent to one replica. It must not gather."""
    answer: Any = None
    error: RagpairError | None = None
    while True:
        try:
            step = advance(flow, answer, error)
        except StopIteration as stop:
            result: T = stop.value
            return result
        assert isinstance(step, Call)
        answer, error = None, None
        try:
            answer = yield replace(step, replica=replica)
        except RagpairError as exc:
            error = exc


def excerpt(body: bytes, limit: int = 200) -> str:
    """The beginning of a reply as one line of text, fit for a message."""
    text = " ".join(body[: limit * 4].decode("utf-8", "replace").split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
