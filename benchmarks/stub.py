"""A loopback server of embeddings and scores that costs a client nothing but the client's own work.

It answers the OpenAI shape (`POST /v1/embeddings`, base64 when asked for), vLLM's `/v1/score` and `/v1/rerank`, and
Ollama's `/api/embed`; and the calls that a client makes to find out what it talks to. Replies depend on the number of
texts and are built once, so the server never computes (`/v1/rerank` must echo its documents, and does). It is meant to
run as a process of its own: then none of its CPU time is counted as the client's.

    python -m benchmarks.stub --port 8199 --dims 1024 --base-ms 15 --per-text-us 80

With `--base-ms` or `--per-text-us` it behaves as one GPU does: requests run one after another, each for
`base + texts * per_text`. With `--queue` it refuses, in vLLM's words, what would make more texts than that wait or run.
`GET /counted` tells the bytes of work since it was last asked, headers included.
"""

import argparse
import asyncio
import base64
import functools
import json
import selectors
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson

Task = Literal["embed", "rerank"]

# A name that no catalogue knows gets no prompt; the reranker must be one whose scores are known.
MODELS: dict[Task, str] = {"embed": "stub", "rerank": "BAAI/bge-reranker-v2-m3"}
MODEL = MODELS["embed"]
MAX_MODEL_LEN = 8192
WORK = {"POST /v1/embeddings", "POST /api/embed", "POST /v1/score", "POST /v1/rerank"}
BUSY = (
    b'{"error":{"message":"The engine is currently busy and cannot accept new requests. Please try again later or on a '
    b'different instance.","type":"Service Unavailable","param":null,"code":503}}'
)


@functools.cache
def vectors(count: int, dims: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Unit vectors with the digits of real ones, the same for every request of this size."""
    rows = np.random.default_rng(7).standard_normal((count, dims)).astype(np.float32)
    unit: np.ndarray[Any, np.dtype[np.float32]] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


@functools.cache
def openai_body(count: int, dims: int, encoding: str, dtype: str) -> bytes:
    """The reply of `/v1/embeddings`; floats are written as Python servers write them, with a double's digits."""
    rows = vectors(count, dims)
    if encoding == "base64":
        values: list[Any] = [base64.b64encode(row.astype(dtype).tobytes()).decode() for row in rows]
    else:
        values = rows.tolist()
    return orjson.dumps(
        {
            "id": "embd-0",
            "object": "list",
            "created": 0,
            "model": MODEL,
            "data": [{"index": i, "object": "embedding", "embedding": value} for i, value in enumerate(values)],
            "usage": {"prompt_tokens": 8 * count, "total_tokens": 8 * count, "completion_tokens": 0},
        }
    )


@functools.cache
def ollama_body(count: int, dims: int) -> bytes:
    """The reply of `/api/embed`; Go writes a float32 with its own, shorter digits."""
    reply = {
        "model": MODEL,
        "embeddings": vectors(count, dims),
        "total_duration": 1,
        "load_duration": 1,
        "prompt_eval_count": 8 * count,
    }
    return orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)


@functools.cache
def scores(count: int, *, activated: bool) -> tuple[float, ...]:
    """Logits, or the sigmoids of the same."""
    logits = np.random.default_rng(7).standard_normal(count)
    return tuple((1 / (1 + np.exp(-logits)) if activated else logits).tolist())


@functools.cache
def score_body(count: int, *, activated: bool) -> bytes:
    """The reply of `/v1/score`."""
    rows = [{"index": i, "object": "score", "score": s} for i, s in enumerate(scores(count, activated=activated))]
    usage = {"prompt_tokens": 24 * count, "total_tokens": 24 * count, "completion_tokens": 0}
    reply = {"id": "score-0", "object": "list", "created": 0, "model": MODELS["rerank"], "data": rows, "usage": usage}
    return orjson.dumps(reply)


def rerank_body(documents: list[str]) -> bytes:
    """The reply of `/v1/rerank`: best first, and each document sent back."""
    ranked = sorted(enumerate(scores(len(documents), activated=True)), key=lambda row: -row[1])
    rows = [
        {"index": i, "document": {"text": documents[i], "multi_modal": None}, "relevance_score": score}
        for i, score in ranked
    ]
    usage = {"prompt_tokens": 24 * len(documents), "total_tokens": 24 * len(documents)}
    return orjson.dumps({"id": "rerank-0", "model": MODELS["rerank"], "usage": usage, "results": rows})


@dataclass(frozen=True)
class Settings:
    """What the stub is told by its command line.

    Attributes:
        dims: Width of the vectors.
        base_ms: The simulated GPU's milliseconds a request.
        per_text_us: Its microseconds a text.
        queue: Texts that may wait or run; 0 is no limit.
        task: What the one served model is for.
    """

    dims: int = 1024
    base_ms: float = 0.0
    per_text_us: float = 0.0
    queue: int = 0
    task: Task = "embed"


class StubServer:
    """What the stub answers, and its simulated GPU."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.free_at = 0.0  # when the GPU has done all that it was given
        self.inside = 0  # texts that wait or run
        self.counted = {"requests": 0, "received": 0, "sent": 0}
        model = MODELS[settings.task]
        card = {
            "id": model,
            "object": "model",
            "created": 0,
            "owned_by": "vllm",
            "root": model,
            "parent": None,
            "max_model_len": MAX_MODEL_LEN,
            "permission": [],
        }
        info = {
            "general.architecture": "bert",
            "bert.embedding_length": settings.dims,
            "bert.context_length": MAX_MODEL_LEN,
        }
        details = {"format": "gguf", "family": "bert", "families": ["bert"], "quantization_level": "F16"}
        tag = {"name": f"{model}:latest", "model": f"{model}:latest", "digest": "0" * 64, "details": details}
        self.facts = {
            "GET /v1/models": orjson.dumps({"object": "list", "data": [card]}),
            "GET /version": orjson.dumps({"version": "0.32.0"}),
            "GET /health": b"",
            "GET /api/version": orjson.dumps({"version": "0.30.0"}),
            "POST /api/show": orjson.dumps({"details": details, "model_info": info, "capabilities": ["embedding"]}),
            "GET /api/tags": orjson.dumps({"models": [tag]}),
            "GET /api/ps": orjson.dumps({"models": [tag]}),
        }

    def fact(self, target: str) -> bytes:
        """The whole answer to anything but work."""
        if target == "GET /counted":
            told, self.counted = self.counted, dict.fromkeys(self.counted, 0)
            return http_reply(orjson.dumps(told))
        body = self.facts.get(target)
        if body is None:
            return http_reply(b'{"error":"not found"}', status=b"404 Not Found")
        return http_reply(body)

    async def work(self, target: str, request: dict[str, Any]) -> bytes:
        """The whole answer to a request for vectors or scores, after the simulated GPU has had its turn."""
        inputs: Any = next((request[name] for name in ("input", "text_2", "documents") if name in request), [])
        # One text, or one list of token ids, is one input.
        count = 1 if isinstance(inputs, str) or (inputs and isinstance(inputs[0], int)) else len(inputs)
        if self.settings.queue and self.inside + count > self.settings.queue:
            return http_reply(BUSY, status=b"503 Service Unavailable")
        self.inside += count
        await self.turn(count)
        self.inside -= count
        match target:
            case "POST /v1/score":
                return http_reply(score_body(count, activated=request.get("use_activation") is not False))
            case "POST /v1/rerank":
                return http_reply(rerank_body(inputs))
            case "POST /api/embed":
                return http_reply(ollama_body(count, self.dims(request)))
        dtype = {"float16": "<f2"}.get(request.get("embed_dtype", ""), "<f4")
        return http_reply(openai_body(count, self.dims(request), request.get("encoding_format") or "float", dtype))

    def dims(self, request: dict[str, Any]) -> int:
        """The width that was asked for, or the model's own."""
        return request.get("dimensions") or self.settings.dims

    async def turn(self, count: int) -> None:
        """Wait until the GPU has done these texts: it keeps its own clock, so our lateness never makes it idle."""
        seconds = self.settings.base_ms / 1e3 + self.settings.per_text_us / 1e6 * count
        if seconds:
            now = asyncio.get_running_loop().time()
            self.free_at = max(self.free_at, now) + seconds
            await asyncio.sleep(self.free_at - now)


def http_reply(body: bytes, status: bytes = b"200 OK") -> bytes:
    """An HTTP/1.1 answer with the headers that uvicorn sends."""
    return (
        b"HTTP/1.1 %b\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\nserver: stub\r\ncontent-length: %d\r\n"
        b"content-type: application/json\r\n\r\n" % (status, len(body))
    ) + body


class Connection(asyncio.Protocol):
    """Just enough HTTP/1.1: keep-alive, bodies with a Content-Length, one request at a time."""

    def __init__(self, server: StubServer) -> None:
        self.server = server
        self.buffer = bytearray()
        self.transport: asyncio.Transport | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what can no longer be answered."""
        self.transport = None

    def data_received(self, data: bytes) -> None:
        """Answer each complete request that has arrived."""
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[:end]).split(b"\r\n")
            length = next((int(line[15:]) for line in head[1:] if line[:15].lower() == b"content-length:"), 0)
            total = end + 4 + length
            if len(self.buffer) < total:
                return
            body = bytes(self.buffer[end + 4 : total])
            del self.buffer[:total]
            method, path = head[0].decode().split(" ")[:2]
            target = f"{method} {path.partition('?')[0]}"
            if target in WORK:
                task = asyncio.get_running_loop().create_task(self.answer(target, body, total))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            else:
                self.write(self.server.fact(target))

    async def answer(self, target: str, body: bytes, received: int) -> None:
        """Answer one request for work, and count it."""
        reply = await self.server.work(target, orjson.loads(body))
        counted = self.server.counted
        counted["requests"] += 1
        counted["received"] += received
        counted["sent"] += len(reply)
        self.write(reply)

    def write(self, reply: bytes) -> None:
        """Send a reply, unless the client has gone."""
        if self.transport is not None:
            self.transport.write(reply)


async def serve(port: int, settings: Settings) -> None:
    """Serve on the loopback until killed; print the base URL once it is listening."""
    server = StubServer(settings)
    listener = await asyncio.get_running_loop().create_server(lambda: Connection(server), "127.0.0.1", port)
    host, port = listener.sockets[0].getsockname()[:2]
    print(f"http://{host}:{port}", flush=True)
    await listener.serve_forever()


@contextmanager
def running_stub(settings: Settings | None = None) -> Iterator[str]:
    """Run the stub in a process of its own on a free port; yields its base URL (without `/v1`)."""
    options = asdict(settings or Settings())
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "benchmarks.stub", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the stub server did not start")
            yield url
        finally:
            process.terminate()


def counted(url: str) -> dict[str, int]:
    """What the stub has counted since it was last asked."""
    with urllib.request.urlopen(f"{url}/counted") as reply:
        told: dict[str, int] = json.load(reply)
    return told


def main() -> None:
    """Parse the command line and serve."""
    defaults = Settings()
    parser = argparse.ArgumentParser(description="A loopback stub of an embedding or reranking server.")
    parser.add_argument("--port", type=int, default=8199, help="0 picks a free one")
    parser.add_argument("--dims", type=int, default=defaults.dims)
    parser.add_argument("--base-ms", type=float, default=defaults.base_ms, help="simulated GPU: milliseconds a request")
    parser.add_argument("--per-text-us", type=float, default=defaults.per_text_us, help="... and microseconds a text")
    parser.add_argument("--queue", type=int, default=defaults.queue, help="texts that may wait or run; 0: no limit")
    parser.add_argument("--task", choices=list(MODELS), default=defaults.task)
    options = vars(parser.parse_args())
    port = options.pop("port")
    # select() waits for microseconds; epoll rounds up to milliseconds, which a fast GPU would be late by.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(serve(port, Settings(**options)))


if __name__ == "__main__":
    main()
