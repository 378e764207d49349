"""Hand-written clients: the least code that embeds texts through `POST /v1/embeddings`, as fast as it gets.

orjson writes the request and reads the reply; base64 float32 vectors go into one float32 array [n, d]. They check
nothing and retry nothing. Only the HTTP library differs, and the decoder. What runs in threads shares one client.
"""

import asyncio
import binascii
import http.client
import importlib
import queue
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import pybase64

from .measure import Timer
from .stub import MODEL

Array = np.ndarray[Any, np.dtype[np.float32]]
Result = Array | list[list[float]]
Client = Callable[["Job", Timer], Result]
JSON = {"content-type": "application/json"}


def _pybase64(digits: str) -> bytes:
    return pybase64.b64decode(digits, validate=True)  # without `validate` it is slower


DECODERS: dict[str, Callable[[str], bytes]] = {"binascii": binascii.a2b_base64, "pybase64": _pybase64}


@dataclass(frozen=True)
class Job:
    """What to embed, and how."""

    url: str
    texts: Sequence[str]
    dims: int
    batch: int
    concurrency: int
    decoder: str = "pybase64"
    as_lists: bool = False
    model: str = MODEL


def payload(texts: Sequence[str], model: str = MODEL) -> bytes:
    """The request body."""
    return orjson.dumps({"model": model, "input": texts, "encoding_format": "base64"})


def fill(out: Array, start: int, body: bytes, decode: Callable[[str], bytes]) -> None:
    """Read one reply into its rows of the result."""
    for item in orjson.loads(body)["data"]:
        out[start + item["index"]] = np.frombuffer(decode(item["embedding"]), dtype="<f4")


async def in_waves(send: Callable[[bytes], Awaitable[bytes]], job: Job, timer: Timer) -> Result:
    """The hand-written asyncio client: one task a batch, a semaphore, rows filled as replies arrive."""
    out = np.empty((len(job.texts), job.dims), dtype=np.float32)
    gate = asyncio.Semaphore(job.concurrency)
    decode = DECODERS[job.decoder]

    async def one(start: int) -> None:
        async with gate:
            body = await send(payload(job.texts[start : start + job.batch], job.model))
        fill(out, start, body, decode)

    await asyncio.gather(*(one(0) for _ in range(job.concurrency)))  # open the connections
    with timer:
        await asyncio.gather(*(one(start) for start in range(0, len(job.texts), job.batch)))
        return out.tolist() if job.as_lists else out


def in_threads(send: Callable[[bytes], bytes], job: Job, timer: Timer) -> Result:
    """The same in threads."""
    out = np.empty((len(job.texts), job.dims), dtype=np.float32)
    decode = DECODERS[job.decoder]

    def one(start: int) -> None:
        fill(out, start, send(payload(job.texts[start : start + job.batch], job.model)), decode)

    with ThreadPoolExecutor(job.concurrency) as pool:
        list(pool.map(one, [0] * job.concurrency))
        with timer:
            list(pool.map(one, range(0, len(job.texts), job.batch)))
            return out.tolist() if job.as_lists else out


def aiohttp_client(job: Job, timer: Timer) -> Result:
    """The aiohttp client."""
    import aiohttp

    async def main() -> Result:
        async with aiohttp.ClientSession() as session:

            async def send(body: bytes) -> bytes:
                async with session.post(job.url, data=body, headers=JSON) as reply:
                    return await reply.read()

            return await in_waves(send, job, timer)

    return asyncio.run(main())


def _httpx_async(module: str, job: Job, timer: Timer, **options: Any) -> Result:
    httpx = importlib.import_module(module)

    async def main() -> Result:
        async with httpx.AsyncClient(verify=False, timeout=60, trust_env=False, **options) as client:

            async def send(body: bytes) -> bytes:
                reply = await client.post(job.url, content=body, headers=JSON)
                return reply.content  # type: ignore[no-any-return]

            return await in_waves(send, job, timer)

    return asyncio.run(main())


def httpx_async(job: Job, timer: Timer) -> Result:
    """httpx.AsyncClient as it comes."""
    return _httpx_async("httpx", job, timer)


def httpx2_async(job: Job, timer: Timer) -> Result:
    """httpx2.AsyncClient as it comes."""
    return _httpx_async("httpx2", job, timer)


def httpx_over_aiohttp(job: Job, timer: Timer) -> Result:
    """httpx.AsyncClient over aiohttp's sockets and parser."""
    from httpx_aiohttp import AiohttpTransport

    return _httpx_async("httpx", job, timer, transport=AiohttpTransport())


def _httpx_threads(module: str, job: Job, timer: Timer) -> Result:
    httpx = importlib.import_module(module)
    with httpx.Client(verify=False, timeout=60, trust_env=False) as client:
        return in_threads(lambda body: client.post(job.url, content=body, headers=JSON).content, job, timer)


def httpx_threads(job: Job, timer: Timer) -> Result:
    """httpx.Client, shared by threads."""
    return _httpx_threads("httpx", job, timer)


def httpx2_threads(job: Job, timer: Timer) -> Result:
    """httpx2.Client, shared by threads."""
    return _httpx_threads("httpx2", job, timer)


def urllib3_threads(job: Job, timer: Timer) -> Result:
    """urllib3.PoolManager, shared by threads."""
    import urllib3

    with urllib3.PoolManager(maxsize=job.concurrency) as pool:
        return in_threads(lambda body: pool.request("POST", job.url, body=body, headers=JSON).data, job, timer)


def stdlib_threads(job: Job, timer: Timer) -> Result:
    """http.client, one connection a thread: the floor."""
    parts = urlsplit(job.url)
    idle: queue.SimpleQueue[http.client.HTTPConnection] = queue.SimpleQueue()
    for _ in range(job.concurrency):
        idle.put(http.client.HTTPConnection(parts.hostname or "", parts.port))

    def send(body: bytes) -> bytes:
        connection = idle.get()
        connection.request("POST", parts.path, body=body, headers=JSON)
        reply = connection.getresponse().read()
        idle.put(connection)
        return reply

    try:
        return in_threads(send, job, timer)
    finally:
        while not idle.empty():
            idle.get().close()


CLIENTS: dict[str, Client] = {
    "aiohttp": aiohttp_client,
    "httpx async": httpx_async,
    "httpx async, aiohttp transport": httpx_over_aiohttp,
    "httpx2 async": httpx2_async,
    "httpx threads": httpx_threads,
    "httpx2 threads": httpx2_threads,
    "urllib3 threads": urllib3_threads,
    "http.client threads": stdlib_threads,
}
