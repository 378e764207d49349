"""How much a server embeds or reranks in a second, and how long one request takes, as a client sees it.

A workload is texts and a schedule: so many requests of so many texts, so many in flight. A run keeps that many in
flight from start to end and times each; what it measures is the server with everything before it. Requests are not
repeated, so that no wait hides in a latency: one that fails is counted as failed.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ragpair import Embedder, Reranker
from ragpair.errors import ConfigurationError, EndpointOverloaded, EndpointUnreachable

Send = Callable[[Sequence[str]], Awaitable[object]]

_RANGE = re.compile(r"(\d+)(?:\.\.(\d+))?|lognormal:(\d+)")
_SIGMA = 0.6  # of lognormal lengths: one text in twenty is more than 2.7 times the median
_SYLLABLES = ("ka", "ro", "mi", "ten", "sol", "ve", "lan", "du", "pri", "ost", "be", "qui", "gar", "ni", "fel", "to")


@dataclass(frozen=True, slots=True)
class Run:
    """What one setting gave.

    Attributes:
        concurrency: Requests in flight.
        batch_size: Texts, or documents, in a request.
        latencies: Seconds of each request that was answered.
        failed: Requests that the server did not answer, or was too busy for.
        seconds: From the first request to the last answer.
    """

    concurrency: int
    batch_size: int
    latencies: tuple[float, ...]
    failed: int
    seconds: float

    @property
    def requests_per_second(self) -> float:
        """Answered requests."""
        return len(self.latencies) / self.seconds

    @property
    def texts_per_second(self) -> float:
        """Texts, or documents, in answered requests."""
        return self.requests_per_second * self.batch_size

    def percentile(self, share: float) -> float:
        """Seconds within which this share (0 to 100) of the requests was answered; NaN if none was."""
        return float(np.percentile(self.latencies, share)) if self.latencies else math.nan

    @property
    def mean(self) -> float:
        """Mean seconds of a request; NaN if none was answered."""
        return sum(self.latencies) / len(self.latencies) if self.latencies else math.nan


def lengths(words: str, seed: int) -> Iterator[int]:
    """Lengths without end: "64" is always 64, "32..256" is uniform, "lognormal:128" has that median and a long tail.

    Raises:
        ConfigurationError: It is none of these.
    """
    found = _RANGE.fullmatch(words.strip())
    low, high, middle = (int(number) if number else 0 for number in found.groups()) if found else (0, 0, 0)
    high = high or low
    if not (0 < low <= high or middle > 0):
        raise ConfigurationError(
            f"words={words!r} is no length: it is a number such as 64, a range such as 32..256, or lognormal:128."
        )
    dice = random.Random(seed)
    while True:
        yield dice.randint(low, high) if low else max(1, round(dice.lognormvariate(math.log(middle), _SIGMA)))


def synthetic(words: str, seed: int = 0) -> Iterator[str]:
    """Texts without end, all different, of words that mean nothing: no cache knows them, and tokenizers split them."""
    dice = random.Random(seed)
    for length in lengths(words, seed):
        yield " ".join("".join(dice.choices(_SYLLABLES, k=dice.randint(1, 3))) for _ in range(length))


def measure(
    client: Embedder | Reranker,
    texts: Iterator[str],
    *,
    concurrency: int,
    batch_size: int,
    requests: int,
    answered: Callable[[], None] = lambda: None,
) -> Run:
    """One setting: a warm-up, then `requests` requests.

    Args:
        client: With `batch_size` and `max_concurrency` as here, and without retries.
        texts: A reranker takes one more a request, as its query.
        concurrency: Requests in flight.
        batch_size: Texts, or documents, in a request.
        requests: How many, warm-up not counted.
        answered: Called after each.

    Raises:
        RagpairError: What no busy server explains: the workload or the server is wrong.
    """
    size = batch_size + isinstance(client, Reranker)
    batches = [[next(texts) for _ in range(size)] for _ in range(requests + concurrency)]
    return asyncio.run(_measure(client, batches, concurrency, batch_size, answered))


async def _measure(
    client: Embedder | Reranker,
    batches: Sequence[Sequence[str]],
    concurrency: int,
    batch_size: int,
    answered: Callable[[], None],
) -> Run:
    send = _sender(client)
    latencies: list[float] = []
    failed = 0

    async def work(pending: Iterator[Sequence[str]], *, timed: bool) -> None:
        nonlocal failed
        for batch in pending:
            start = time.perf_counter()
            try:
                await send(batch)
            except (EndpointOverloaded, EndpointUnreachable):
                if not timed:
                    raise  # nothing came yet: this is no load, but a server that is not there
                failed += 1
            else:
                if timed:
                    latencies.append(time.perf_counter() - start)
            if timed:
                answered()

    async def together(some: Sequence[Sequence[str]], *, timed: bool) -> None:
        pending = iter(some)
        await asyncio.gather(*(work(pending, timed=timed) for _ in range(concurrency)))

    await together(batches[:1], timed=False)  # the first request also asks who the server is
    await together(batches[1:concurrency], timed=False)  # opens the connections
    start = time.perf_counter()
    await together(batches[concurrency:], timed=True)
    seconds = time.perf_counter() - start
    await client.aclose()
    return Run(concurrency, batch_size, tuple(latencies), failed, seconds)


def _sender(client: Embedder | Reranker) -> Send:
    if isinstance(client, Embedder):
        return client.aembed_documents
    reranker = client

    async def send(texts: Sequence[str]) -> object:
        return await reranker.ascore(texts[0], texts[1:])

    return send
