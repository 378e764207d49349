"""The server that tests hold: one engine with one model, what it received, and the faults that it was told to make."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from typing import Any, Self, get_args

from ragpair import catalog
from ragpair.testing.engines import ENGINES, Answer, Engine, Task
from ragpair.testing.faults import Fault
from ragpair.testing.listener import Listener, Request


class FakeServer:
    """A server of one model, on a free port of 127.0.0.1, from `with` (or `start`) to its end (or `stop`).

    Its address stays its own: once stopped, connections are refused there, and started again, it is back.

    Args:
        engine: Whose API it speaks.
        model: Name that it serves; None is a well-known one that fits engine and task.
        task: "embed"; "rerank" is a cross-encoder; "answers" is an LLM that says yes or no, such as Qwen3-Reranker.
            None is what the catalogue says the model is for, and "embed" where that is not known.
        dims: Width of the vectors.
        max_tokens: What the engine tells as its context length. A token is a word or a Chinese character.
        api_key: Refuse requests without this bearer token, on the routes that the engine guards.
        latency: Seconds that each embedding or scoring request takes.
        version: What the engine tells as its version.
        hidden: Paths that a gateway in front does not let through: they are 404.
        queue: Refuse requests that hold more texts or pairs, as vLLM and SGLang do whose queue is limited.
        idle: Close connections that wait so many seconds for a next request; vLLM closes them after 5.

    Raises:
        ValueError: There is no such engine or task, or `queue` for Ollama or llama.cpp, whose queues count requests.

    Attributes:
        requests: All that arrived, probes included, in order of arrival.
        in_flight_peak: Most embedding or scoring requests that were in work at the same time.
    """

    def __init__(
        self,
        engine: Engine = "vllm",
        *,
        model: str | None = None,
        task: Task | None = None,
        dims: int = 64,
        max_tokens: int = 512,
        api_key: str | None = None,
        latency: float = 0.0,
        version: str | None = None,
        hidden: Collection[str] = (),
        queue: int | None = None,
        idle: float | None = None,
    ) -> None:
        _check("engine", engine, ENGINES)
        _check("task", task, (None, *get_args(Task)))
        task = task or _task_of(model)
        self._engine = ENGINES[engine](model, task, dims, max_tokens, version, queue)
        self._work = self._engine.work[task]
        self._api_key, self._latency, self._hidden = api_key, latency, frozenset(hidden)
        self._idle, self._port = idle, 0
        self._listener: Listener | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._faults: list[tuple[Fault, int | None]] = []
        self._in_flight = 0
        self.in_flight_peak = 0
        self.requests: list[Request] = []

    @property
    def url(self) -> str:
        """The base URL, without "/v1"."""
        if not self._port:
            raise RuntimeError("the server was never started: use it as a context manager, or call start()")
        return f"http://127.0.0.1:{self._port}"

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
        """Listen; after a stop or a death, where it did before. Returns itself."""
        if self._listener is None or not self._listener.alive:
            self.stop()
            self._stopping.clear()
            self._listener = Listener(self._port, self._handle, self._idle, self._stopping)
            self._port = self._listener.server_address[1]
        return self

    def stop(self) -> None:
        """Close all connections and the port, and wait for the threads."""
        listener, self._listener = self._listener, None
        if listener is not None:
            self._stopping.set()
            listener.hang_up()

    def drop_idle(self) -> None:
        """Close the connections that wait for a next request, as after `idle` seconds."""
        if self._listener is not None:
            self._listener.drop_idle()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _take(self, path: str, body: Any) -> Fault | None:
        with self._lock:
            for number, (fault, left) in enumerate(self._faults):
                meant = fault.path == path or (fault.path is None and path in self._work)
                if meant and (fault.holding is None or any(fault.holding in text for text in _strings(body))):
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
            fault = self._take(path, request.body) or Fault()
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


def _check(what: str, value: object, known: Collection[str | None]) -> None:
    if value not in known:
        raise ValueError(f"{what}={value!r} is not one of {', '.join(map(repr, known))}")


def _task_of(model: str | None) -> Task:
    match = catalog.find(model, kind="reranker")
    if match is None:
        return "embed"
    return "answers" if match.family.type == "yes-no" else "rerank"


def _strings(body: Any) -> Iterator[str]:
    """All strings in a JSON value, but for names of fields."""
    if isinstance(body, str):
        yield body
    elif isinstance(body, dict | list):
        for value in body.values() if isinstance(body, dict) else body:
            yield from _strings(value)
