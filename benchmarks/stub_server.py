"""A loopback embedding server that costs a client nothing but the client's own work.

It answers the OpenAI shape (`POST /v1/embeddings`, base64 when asked for) and Ollama's (`POST /api/embed`), plus the
calls that a client makes to find out what it talks to. Reply bodies depend on the number of texts alone and are built
once, so the server never computes. It is meant to run as a process of its own: then none of its CPU time is counted
as the client's.

    python benchmarks/stub_server.py --port 8199 --dims 1024 --base-ms 15 --per-text-us 80

With `--base-ms` or `--per-text-us` it behaves as one GPU does: batches run one after another, each for
`base + texts * per_text`. `--engine` says what it claims to be; `both` answers the calls of either.
"""

import argparse
import asyncio
import base64
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson

MODEL = "stub"
MAX_MODEL_LEN = 8192


@functools.cache
def vectors(count: int, dims: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Unit vectors with the digits of real ones, the same for every request of this size."""
    rows = np.random.default_rng(7).standard_normal((count, dims)).astype(np.float32)
    unit: np.ndarray[Any, np.dtype[np.float32]] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


@functools.cache
def openai_body(count: int, dims: int, encoding: str) -> bytes:
    """The reply of `/v1/embeddings`; floats are written as Python servers write them, with a double's digits."""
    rows = vectors(count, dims)
    if encoding == "base64":
        values: list[Any] = [base64.b64encode(row.tobytes()).decode() for row in rows]
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


class StubServer:
    """What the stub answers, and its simulated GPU."""

    def __init__(self, dims: int, base_s: float, per_text_s: float, engine: str) -> None:
        self.dims = dims
        self.base_s = base_s
        self.per_text_s = per_text_s
        self.gpu = asyncio.Lock()
        self.facts: dict[str, bytes] = {}
        if engine in ("vllm", "both"):
            card = {
                "id": MODEL,
                "object": "model",
                "created": 0,
                "owned_by": "vllm",
                "root": MODEL,
                "parent": None,
                "max_model_len": MAX_MODEL_LEN,
                "permission": [],
            }
            self.facts["GET /v1/models"] = orjson.dumps({"object": "list", "data": [card]})
            self.facts["GET /version"] = orjson.dumps({"version": "0.19.0"})
            self.facts["GET /health"] = b""
        if engine in ("ollama", "both"):
            info = {
                "general.architecture": "bert",
                "bert.embedding_length": dims,
                "bert.context_length": MAX_MODEL_LEN,
            }
            details = {"format": "gguf", "family": "bert", "families": ["bert"], "quantization_level": "F16"}
            tag = {"name": f"{MODEL}:latest", "model": f"{MODEL}:latest", "digest": "0" * 64, "details": details}
            show = {"details": details, "model_info": info, "capabilities": ["embedding"]}
            self.facts["GET /api/version"] = orjson.dumps({"version": "0.30.0"})
            self.facts["POST /api/show"] = orjson.dumps(show)
            self.facts["GET /api/tags"] = orjson.dumps({"models": [tag]})
            self.facts["GET /api/ps"] = orjson.dumps({"models": [tag]})

    def fact(self, target: str) -> bytes:
        """The whole answer to anything but a request for embeddings."""
        body = self.facts.get(target)
        if body is None:
            return http_reply(b'{"error":"not found"}', status=b"404 Not Found")
        return http_reply(body)

    async def embed(self, target: str, request: dict[str, Any]) -> bytes:
        """The whole answer to a request for embeddings, after the simulated GPU has had its turn."""
        texts = request["input"]
        # One text, or one list of token ids, is one input.
        count = 1 if isinstance(texts, str) or (texts and isinstance(texts[0], int)) else len(texts)
        if self.base_s or self.per_text_s:
            async with self.gpu:
                await asyncio.sleep(self.base_s + self.per_text_s * count)
        dims = request.get("dimensions") or self.dims
        if target == "POST /api/embed":
            return http_reply(ollama_body(count, dims))
        return http_reply(openai_body(count, dims, request.get("encoding_format") or "float"))


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
        self.buffer = b""
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
            head = self.buffer[:end].split(b"\r\n")
            length = next((int(line[15:]) for line in head[1:] if line[:15].lower() == b"content-length:"), 0)
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            method, path = head[0].decode().split(" ")[:2]
            target = f"{method} {path.partition('?')[0]}"
            if target in ("POST /v1/embeddings", "POST /api/embed"):
                task = asyncio.get_running_loop().create_task(self.answer(target, orjson.loads(body)))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            else:
                self.write(self.server.fact(target))

    async def answer(self, target: str, request: dict[str, Any]) -> None:
        """Answer one request for embeddings."""
        self.write(await self.server.embed(target, request))

    def write(self, reply: bytes) -> None:
        """Send a reply, unless the client has gone."""
        if self.transport is not None:
            self.transport.write(reply)


async def serve(port: int, dims: int, base_ms: float, per_text_us: float, engine: str) -> None:
    """Serve on the loopback until killed; print the base URL once it is listening."""
    server = StubServer(dims, base_ms / 1e3, per_text_us / 1e6, engine)
    listener = await asyncio.get_running_loop().create_server(lambda: Connection(server), "127.0.0.1", port)
    host, port = listener.sockets[0].getsockname()[:2]
    print(f"http://{host}:{port}", flush=True)
    await listener.serve_forever()


@contextmanager
def running_stub(dims: int = 1024, base_ms: float = 0, per_text_us: float = 0, engine: str = "both") -> Iterator[str]:
    """Run the stub in a process of its own on a free port; yields its base URL (without `/v1`)."""
    options = {"port": 0, "dims": dims, "base-ms": base_ms, "per-text-us": per_text_us, "engine": engine}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with subprocess.Popen(
        [sys.executable, str(Path(__file__)), *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the stub server did not start")
            yield url
        finally:
            process.terminate()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description="A loopback stub of an embedding server.")
    parser.add_argument("--port", type=int, default=8199, help="0 picks a free one")
    parser.add_argument("--dims", type=int, default=1024)
    parser.add_argument("--base-ms", type=float, default=0.0, help="simulated GPU: milliseconds a batch")
    parser.add_argument("--per-text-us", type=float, default=0.0, help="simulated GPU: microseconds a text")
    parser.add_argument("--engine", choices=["vllm", "ollama", "both"], default="both")
    options = parser.parse_args()
    try:
        asyncio.run(serve(options.port, options.dims, options.base_ms, options.per_text_us, options.engine))
    except KeyboardInterrupt:
        print(json.dumps({"stopped": True}))


if __name__ == "__main__":
    main()
