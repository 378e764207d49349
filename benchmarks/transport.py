"""Which HTTP client, at which batch size, costs the least CPU on large replies.

Each contender is the least code that embeds N texts through `POST /v1/embeddings`: orjson writes the request and reads
the reply, base64 float32 vectors go into one float32 array [n, d]. Only the HTTP library differs, and the decoder.

    python benchmarks/transport.py --texts 2048 --batches 32 64 128 --concurrency 4 8
"""

import argparse
import asyncio
import binascii
import http.client
import importlib
import importlib.util
import itertools
import queue
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
from stub_server import MODEL, running_stub

Array = np.ndarray[Any, np.dtype[np.float32]]
Result = Array | list[list[float]]
JSON = {"content-type": "application/json"}


class Timer:
    """CPU time of this process, all threads, and wall time; clients are built and warmed up outside it."""

    cpu = 0.0
    wall = 0.0

    def __enter__(self) -> None:
        """Start."""
        self._start = (time.process_time(), time.perf_counter())

    def __exit__(self, *exc: object) -> None:
        """Stop."""
        self.cpu = time.process_time() - self._start[0]
        self.wall = time.perf_counter() - self._start[1]


@dataclass(frozen=True)
class Job:
    """What to embed, and how."""

    url: str
    texts: Sequence[str]
    dims: int
    batch: int
    concurrency: int
    decode: Callable[[str], bytes] = binascii.a2b_base64
    as_lists: bool = False


def payload(texts: Sequence[str]) -> bytes:
    """The request body."""
    return orjson.dumps({"model": MODEL, "input": texts, "encoding_format": "base64"})


def fill(out: Array, start: int, body: bytes, job: Job) -> None:
    """Read one reply into its rows of the result."""
    for item in orjson.loads(body)["data"]:
        out[start + item["index"]] = np.frombuffer(job.decode(item["embedding"]), dtype="<f4")


async def in_waves(send: Callable[[bytes], Awaitable[bytes]], job: Job, timer: Timer) -> Result:
    """The hand-written asyncio client: one task a batch, a semaphore, rows filled as replies arrive."""
    out = np.empty((len(job.texts), job.dims), dtype=np.float32)
    gate = asyncio.Semaphore(job.concurrency)

    async def one(start: int) -> None:
        async with gate:
            body = await send(payload(job.texts[start : start + job.batch]))
        fill(out, start, body, job)

    await asyncio.gather(*(one(0) for _ in range(job.concurrency)))  # open the connections
    with timer:
        await asyncio.gather(*(one(start) for start in range(0, len(job.texts), job.batch)))
        return out.tolist() if job.as_lists else out


def in_threads(send: Callable[[bytes], bytes], job: Job, timer: Timer) -> Result:
    """The same in threads."""
    out = np.empty((len(job.texts), job.dims), dtype=np.float32)

    def one(start: int) -> None:
        fill(out, start, send(payload(job.texts[start : start + job.batch])), job)

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


CONTENDERS: dict[str, Callable[[Job, Timer], Result]] = {
    "aiohttp": aiohttp_client,
    "httpx async": httpx_async,
    "httpx async, aiohttp transport": httpx_over_aiohttp,
    "httpx2 async": httpx2_async,
    "httpx threads": httpx_threads,
    "httpx2 threads": httpx2_threads,
    "urllib3 threads": urllib3_threads,
    "http.client threads": stdlib_threads,
}

NEEDS = {
    "aiohttp": ["aiohttp"],
    "httpx async, aiohttp transport": ["aiohttp", "httpx_aiohttp"],
    "httpx2 async": ["httpx2"],
    "httpx2 threads": ["httpx2"],
    "urllib3 threads": ["urllib3"],
}
DECODERS: dict[str, Callable[[str], bytes]] = {"binascii": binascii.a2b_base64}
if importlib.util.find_spec("pybase64"):
    import pybase64

    DECODERS["pybase64"] = pybase64.b64decode


def available(name: str) -> bool:
    """Whether the libraries of this contender are installed."""
    return all(importlib.util.find_spec(module) for module in NEEDS.get(name, []))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="CPU a text by HTTP client, batch size and decoder.")
    parser.add_argument("--texts", type=int, default=2048)
    parser.add_argument("--dims", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8])
    parser.add_argument("--decoders", nargs="+", choices=list(DECODERS), default=list(DECODERS))
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    options = parser.parse_args()
    texts = [f"text number {i}, a short passage about nothing in particular" for i in range(options.texts)]
    names = [name for name in options.only if available(name)]
    cells = list(itertools.product(options.concurrency, options.batches, options.decoders, names))
    cpu: dict[Any, list[float]] = {cell: [] for cell in cells}
    wall: dict[Any, list[float]] = {cell: [] for cell in cells}
    with running_stub(options.dims) as url:
        # Rounds, not repeats: what else the machine does then falls on every contender alike. The first is not counted.
        for round_number in range(options.runs + 1):
            for cell in cells:
                concurrency, batch, decoder, name = cell
                job = Job(f"{url}/v1/embeddings", texts, options.dims, batch, concurrency, DECODERS[decoder])
                timer = Timer()
                CONTENDERS[name](job, timer)
                if round_number:
                    cpu[cell].append(timer.cpu / len(texts) * 1e6)
                    wall[cell].append(timer.wall / len(texts) * 1e6)
    hand = [statistics.median(cpu[cell]) for cell in cells if cell[2:] == ("binascii", "aiohttp")]
    print("| concurrency | batch | decoder | client | CPU us/text (min-max) | wall us/text | to the best aiohttp |")
    print("|---|---|---|---|---|---|---|")
    for cell in cells:
        concurrency, batch, decoder, name = cell
        middle = statistics.median(cpu[cell])
        ratio = f"{middle / min(hand):.2f}" if hand else "-"
        spread = f"{middle:.0f} ({min(cpu[cell]):.0f}-{max(cpu[cell]):.0f})"
        seconds = f"{statistics.median(wall[cell]):.0f}"
        print(f"| {concurrency} | {batch} | {decoder} | {name} | {spread} | {seconds} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
