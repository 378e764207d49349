"""The HTTP side: a listening thread, what it received, and the faults that it was told to make."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Self

import orjson

from ragpair.testing.engines import ENGINES, Answer, Engine, Task


@dataclass(frozen=True, slots=True)
class Request:
    """What arrived.

    Attributes:
        method: "GET" or "POST".
        path: With query string, if there was one.
        body: The JSON that was sent; None if there was none.
        headers: Names in lower case.
    """

    method: str
    path: str
    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with a request, in place of the right answer or on top of it.

    `Fault(status=503)` answers with an error; the class methods make the others. A fault is for the next requests that
    embed or score, or with `path` for the next to that path, GET or POST.

    Attributes:
        status: HTTP status; None is what the engine answers.
        body: A string or bytes are sent as they are, anything else as JSON; None is what the engine would say.
        headers: Added to the answer, such as {"Retry-After": "1"}.
        times: How many requests; None is all of them from here on.
        path: Which path.
        content_type: Of `body`.
        change: Makes another reply of the engine's JSON; may change it in place and return None.
        seconds: Wait this long before answering.
        lost: "before" closes the connection without an answer, "half" in the middle of it.
    """

    status: int | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int | None = 1
    path: str | None = None
    content_type: str = "application/json"
    change: Callable[[Any], Any] | None = None
    seconds: float = 0.0
    lost: str | None = None

    @classmethod
    def drop(cls, *, half: bool = False, times: int | None = 1, path: str | None = None) -> Self:
        """The connection dies without an answer, or with half of one."""
        return cls(lost="half" if half else "before", times=times, path=path)

    @classmethod
    def garbage(
        cls, data: bytes, content_type: str = "application/json", *, times: int | None = 1, path: str | None = None
    ) -> Self:
        """Status 200, and these bytes."""
        return cls(200, data, times=times, path=path, content_type=content_type)

    @classmethod
    def edit(cls, change: Callable[[Any], Any], *, times: int | None = 1, path: str | None = None) -> Self:
        """The right answer, changed; error answers stay as they are."""
        return cls(change=change, times=times, path=path)

    @classmethod
    def delay(cls, seconds: float, *, times: int | None = 1, path: str | None = None) -> Self:
        """The right answer, late."""
        return cls(seconds=seconds, times=times, path=path)


class FakeServer:
    """A server of one model, on a free port of 127.0.0.1, from `with` (or `start`) to its end (or `stop`).

    Args:
        engine: Whose API it speaks.
        model: Name that it serves; None is a well-known one that fits engine and task.
        task: "embed"; "rerank" is a cross-encoder; "answers" is an LLM that says yes or no, such as Qwen3-Reranker.
        dims: Width of the vectors.
        max_tokens: What the engine tells as its context length. A token is a word or a Chinese character.
        api_key: Refuse requests without this bearer token, on the routes that the engine guards.
        latency: Seconds that each embedding or scoring request takes.
        version: What the engine tells as its version.
        hidden: Paths that a gateway in front does not let through: they are 404.

    Attributes:
        requests: All that arrived, probes included, in order of arrival.
        in_flight_peak: Most embedding or scoring requests that were in work at the same time.
    """

    def __init__(
        self,
        engine: Engine = "vllm",
        *,
        model: str | None = None,
        task: Task = "embed",
        dims: int = 64,
        max_tokens: int = 512,
        api_key: str | None = None,
        latency: float = 0.0,
        version: str | None = None,
        hidden: Collection[str] = (),
    ) -> None:
        self._engine = ENGINES[engine](model, task, dims, max_tokens, version)
        self._work = self._engine.work[task]
        self._api_key, self._latency, self._hidden = api_key, latency, frozenset(hidden)
        self._http: _Http | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._faults: list[tuple[Fault, int | None]] = []
        self._in_flight = 0
        self.in_flight_peak = 0
        self.requests: list[Request] = []

    @property
    def url(self) -> str:
        """The base URL, without "/v1"."""
        if self._http is None:
            raise RuntimeError("the server is not running: use it as a context manager, or call start()")
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def model(self) -> str:
        """Name of the served model."""
        return self._engine.model

    @property
    def work(self) -> list[Request]:
        """The requests that embed or score, as far as this model can, without questions about engine and model."""
        return [request for request in self.requests if request.path in self._work]

    @property
    def texts(self) -> list[str]:
        """All texts that arrived for embedding, exactly as sent, in order of arrival."""
        bodies = [r.body for r in self.requests if r.path in ("/v1/embeddings", "/api/embed")]
        given = [body.get("input") for body in bodies if isinstance(body, dict)]
        return [text for texts in given for text in ([texts] if isinstance(texts, str) else texts or [])]

    def fail(self, *faults: Fault) -> None:
        """Queue faults; each request that one is for uses it up by one."""
        with self._lock:
            self._faults += [(fault, fault.times) for fault in faults]

    def clear(self) -> None:
        """Forget requests, peak and faults."""
        with self._lock:
            self.requests.clear()
            self._faults.clear()
            self.in_flight_peak = 0

    def start(self) -> Self:
        """Listen. Returns itself."""
        if self._http is None:
            self._stopping.clear()
            self._http = _Http(self)
            self._http.listen()
        return self

    def stop(self) -> None:
        """Close all connections and the port, and wait for the threads."""
        http, self._http = self._http, None
        if http is not None:
            self._stopping.set()
            http.hang_up()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _take(self, path: str) -> Fault | None:
        with self._lock:
            for number, (fault, left) in enumerate(self._faults):
                if fault.path == path or (fault.path is None and path in self._work):
                    self._faults[number] = (fault, None if left is None else left - 1)
                    if left is not None and left <= 1:
                        del self._faults[number]
                    return fault
        return None

    def _handle(self, request: Request) -> tuple[Answer, Fault]:
        """The answer, and the fault that goes with it."""
        path = request.path.partition("?")[0]
        works = path in self._work
        with self._lock:
            self.requests.append(request)
            self._in_flight += works
            self.in_flight_peak = max(self.in_flight_peak, self._in_flight)
        try:
            fault = self._take(path) or Fault()
            pause = fault.seconds + (self._latency if works else 0.0)
            if pause:
                self._stopping.wait(pause)
            return self._answer(request, path, fault), fault
        finally:
            with self._lock:
                self._in_flight -= works

    def _answer(self, request: Request, path: str, fault: Fault) -> Answer:
        if fault.body is not None:
            return Answer(fault.status or 200, fault.body, fault.content_type)
        if fault.status is not None:
            return Answer(fault.status, self._engine.error(fault.status, "a fault that the test asked for"))
        wanted = None if self._api_key is None else f"Bearer {self._api_key}"
        if wanted is not None and self._engine.guards(path) and request.headers.get("authorization") != wanted:
            return self._engine.unauthorized
        if path in self._hidden:
            return self._engine.missing
        answer = self._engine.answer(request.method, path, request.body)
        if fault.change is None or answer.status != 200:
            return answer
        try:
            changed = fault.change(answer.body)
        except Exception as exc:  # the test's own fault: it should see it, not a lost connection
            return Answer(500, self._engine.error(500, f"Fault.edit raised {exc!r}"))
        return Answer(200, answer.body if changed is None else changed)


class _Http(socketserver.ThreadingMixIn, HTTPServer):
    """Remembers its connections and their threads, so that none outlives the server."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, fake: FakeServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fake = fake
        self._open: dict[threading.Thread, socket.socket] = {}
        self._listener = threading.Thread(target=self.serve_forever, args=(0.01,), name="FakeServer", daemon=True)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own looks the host's name up

    def listen(self) -> None:
        self._listener.start()

    def hang_up(self) -> None:
        self.shutdown()
        self._listener.join()
        self.server_close()
        for thread, connection in list(self._open.items()):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self._open[thread] = request
        thread.start()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.pop(threading.current_thread(), None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up in the middle of things; that is their right."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave together
    server: _Http

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._serve(None)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            self._serve(orjson.loads(data))
        except orjson.JSONDecodeError:
            self._serve(None)

    def _serve(self, body: Any) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer, fault = self.server.fake._handle(Request(self.command, self.path, body, headers))
        if fault.lost == "before":
            self.close_connection = True
            return
        data = answer.body.encode() if isinstance(answer.body, str) else answer.body
        data = data if isinstance(data, bytes) else orjson.dumps(data)
        self.send_response(answer.status)
        for name, value in {"Content-Type": answer.content_type, **fault.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault.lost == "half":
            data = data[: len(data) // 2]
            self.close_connection = True
        self.wfile.write(data)
