"""How much of a server's speed is reached: simulated GPUs that compute one request after another.

    python -m benchmarks.gpu --only medium

ragpair at its defaults finds batch size and requests in flight by itself, from a fresh object, on each server; beside
it, the hand-written client with every fixed pair of a grid. A pair that suits one server starves another or overruns
its queue.
"""

import argparse
import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import numpy as np

from ragpair import Embedder

from .clients import DECODERS, JSON, fill, payload
from .measure import Samples, Timer, in_rounds, median, middle, ratios, spread
from .report import Section, at_least, machine, script, table
from .stub import MODEL, Settings, running_stub


@dataclass(frozen=True)
class Server:
    """A simulated server and the work for it.

    Attributes:
        settings: Of the stub.
        texts: How many to embed.
    """

    settings: Settings
    texts: int

    @property
    def ceiling(self) -> float:
        """Texts a second if it were never idle, in the largest requests of the grid that its queue admits."""
        batch = max(b for b in BATCHES if not self.settings.queue or b <= self.settings.queue)
        return batch / (self.settings.base_ms / 1e3 + batch * self.settings.per_text_us / 1e6)

    @property
    def shown(self) -> str:
        """For the head of a column."""
        queue = f", at most {self.settings.queue} texts queued" if self.settings.queue else ""
        return f"{self.settings.base_ms:g} ms + {self.settings.per_text_us:g} us a text{queue}"


SERVERS = {
    "fast": Server(Settings(dims=384, base_ms=2, per_text_us=10), 16384),
    "medium": Server(Settings(dims=1024, base_ms=15, per_text_us=80), 8192),
    "slow": Server(Settings(dims=1024, base_ms=60, per_text_us=4000, queue=64), 512),
}
BATCHES = (16, 64, 256, 1024)
IN_FLIGHT = (1, 2, 8)
LIMIT = (128, 8)
TIMEOUT = 120.0  # as ragpair's default
# As ragpair does: what can be halved is tried once more first, one text three times, after waits that double.
RETRIES, FIRST_WAIT = 3, 0.25

FIRST, LATER = "ragpair at its defaults, {}, first call", "ragpair at its defaults, {}, later calls"
COLOURS = ("async", "sync")
OURS = [row.format(colour) for row in (FIRST, LATER) for colour in COLOURS]
ABOUT = """\
Each server computes one request at a time, for its fixed time and its time a text: {servers}. Past
its queue the slow one answers 503 in vLLM's words. Texts a second, median (minimum-maximum) of {rounds} rounds. A first
call is that of a fresh object that has embedded one text, so it finds its way while the clock runs; later calls are
those of an object that has embedded as many before. The fixed pairs (texts a request x requests in flight) are the
hand-written httpx client with retries such as ragpair's, and it halves a request that the queue does not hold: the
comparison is about the pair, not about robustness. "Share" is of the fastest on that server; the last column is the
worst of the shares. "Ceiling" is what the server does when it is never idle, in the largest requests of the grid that
its queue admits."""


class GaveUp(Exception):
    """The server was busy after all retries, for a single text."""


async def fixed_pair(url: str, texts: Sequence[str], dims: int, batch: int, in_flight: int, timer: Timer) -> None:
    """The hand-written httpx client; a request that is refused for the queue is sent again, then in halves."""
    out = np.empty((len(texts), dims), dtype=np.float32)
    gate = asyncio.Semaphore(in_flight)

    async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT) as client:

        async def post(part: Sequence[str]) -> httpx.Response:
            async with gate:
                return await client.post(f"{url}/v1/embeddings", content=payload(part), headers=JSON)

        async def one(start: int, end: int) -> None:
            divisible = end - start > 1
            tries = 1
            while (reply := await post(texts[start:end])).status_code == 503:
                if tries > (1 if divisible else RETRIES):
                    if not divisible:
                        raise GaveUp(f"503 after {tries} tries")
                    half = (start + end) // 2
                    await one(start, half)
                    await one(half, end)
                    return
                await asyncio.sleep(FIRST_WAIT * 2 ** (tries - 1) * random.uniform(0.75, 1.0))
                tries += 1
            fill(out, start, reply.content, DECODERS["pybase64"])

        await post(texts[:1])
        with timer:
            await asyncio.gather(*(one(start, min(start + batch, len(texts))) for start in range(0, len(texts), batch)))


async def _aembed(url: str, texts: Sequence[str], before: int, timer: Timer) -> None:
    async with Embedder(url, MODEL, family=None) as embedder:
        await embedder.aembed_documents(texts[:before])
        with timer:
            await embedder.aembed_documents(texts)


def _embed(url: str, texts: Sequence[str], before: int, timer: Timer) -> None:
    with Embedder(url, MODEL, family=None) as embedder:
        embedder.embed_documents(texts[:before])
        with timer:
            embedder.embed_documents(texts)


def measure(rounds: int, only: Sequence[str]) -> Section:
    """All contenders on all servers."""
    measured = {name: _on(SERVERS[name], rounds) for name in only}
    limit = f"hand-written, fixed {LIMIT[0]} x {LIMIT[1]} (limit)"
    rows = []
    for contender in next(iter(measured.values())):
        shares = {name: _share(contender, measured[name]) for name in only}
        cells = [_cell(SERVERS[name], measured[name][contender], shares[name]) for name in only]
        rows.append(([contender, *cells, f"{min(shares.values()):.2f}"], min(shares.values())))
    ceilings = ["ceiling", *(f"{SERVERS[name].ceiling:,.0f}" for name in only), "-"]
    shown = table(("texts/s (share)", *only, "worst share"), [ceilings, *(row for row, _ in rows)])
    targets = []
    for name in only:
        for contender in OURS:
            reached = middle(ratios(measured[name][limit], measured[name][contender], "wall"))
            targets.append(at_least(f"{contender}, {name} server: at least 0.95 of the limit client", reached, 0.95))
    best_pair = max(worst for row, worst in rows if row[0] not in OURS)
    for row, worst in rows:
        if row[0] in OURS:
            promise = f"{row[0]}: worst share over the servers at least that of the best fixed pair ({best_pair:.2f})"
            targets.append(at_least(promise, worst, best_pair))
    about = ABOUT.format(servers="; ".join(f"{name} {SERVERS[name].shown}" for name in only), rounds=rounds)
    return Section(f"{about}\n\n{shown}\n\n{machine()}", targets)


def _on(server: Server, rounds: int) -> dict[str, Samples]:
    texts = [f"text number {i}, a short passage about nothing in particular" for i in range(server.texts)]
    with running_stub(server.settings) as url, asyncio.Runner() as runner:

        def on_loop(coroutine: Callable[..., Any], *arguments: Any) -> Callable[[Timer], object]:
            return lambda timer: runner.run(coroutine(url, texts, *arguments, timer))

        contenders: dict[str, Callable[[Timer], object]] = {}
        for row, before in ((FIRST, 1), (LATER, len(texts))):
            contenders[row.format("async")] = on_loop(_aembed, before)
            contenders[row.format("sync")] = partial(_embed, url, texts, before)
        dims = server.settings.dims
        contenders[f"hand-written, fixed {LIMIT[0]} x {LIMIT[1]} (limit)"] = on_loop(fixed_pair, dims, *LIMIT)
        for batch in BATCHES:
            for in_flight in IN_FLIGHT:
                contenders[f"hand-written, fixed {batch} x {in_flight}"] = on_loop(fixed_pair, dims, batch, in_flight)
        return in_rounds(contenders, rounds, warm_up=False)


def _share(contender: str, measured: Mapping[str, Samples]) -> float:
    """Its speed over that of the fastest; 0 if it failed."""
    fastest = min(wall for samples in measured.values() if not math.isnan(wall := median(samples, "wall")))
    wall = median(measured[contender], "wall")
    return 0.0 if math.isnan(wall) else fastest / wall


def _cell(server: Server, samples: Samples, share: float) -> str:
    if samples.failure:
        return samples.failure
    speeds = [server.texts / wall for wall in samples.wall]
    return f"{spread(speeds, digits=0)} ({share:.2f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog=__spec__.name, description="Share of a simulated server's speed.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(SERVERS), default=list(SERVERS))
    script(parser, measure)


if __name__ == "__main__":
    main()
