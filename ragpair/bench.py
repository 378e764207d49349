"""How much a server embeds or reranks in a second, and how long one request takes, as a client sees it.

A workload is texts and a schedule: so many requests of so many texts, so many in flight. A run keeps that many in
flight from start to end and times each. An `Embedder` or a `Reranker` would not do that: it finds a pace of its own. So
requests are made here, by the same dialects; each worker has a driver to itself, and nothing is sent twice, so that no
wait hides in a latency.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ragpair import resolve
from ragpair.dialects import DIALECTS, detect
from ragpair.dialects.base import Dialect, ScorePlan, Served, Task
from ragpair.drivers import AsyncDriver, SyncDriver
from ragpair.endpoint import Endpoint
from ragpair.errors import ConfigurationError, EndpointOverloaded, EndpointUnreachable
from ragpair.flows.lengths import PAIR_SPECIALS, count_tokens
from ragpair.prompts import Prompt
from ragpair.retry import RetryPolicy
from ragpair.wire import Flow, send

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
        cut_at: Tokens at which the server cut longer texts, if there were any as far as is known; else None.
    """

    concurrency: int
    batch_size: int
    latencies: tuple[float, ...]
    failed: int
    seconds: float
    cut_at: int | None = None

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


@dataclass(frozen=True, slots=True)
class Target:
    """A model on a server.

    Attributes:
        endpoint: Where it is.
        request: Makes one request of these texts; of a reranker, the first is the query.
        beside: Texts of a request that do not count: the query.
        cut_at: Finds out whether the server cuts this text, and at how many tokens; None where it cuts none.
    """

    endpoint: Endpoint
    request: Callable[[Sequence[str]], Flow[None]]
    beside: int = 0
    cut_at: Callable[[str], Flow[int | None]] | None = None


def connect(
    endpoint: Endpoint, task: Task, *, model: str | None = None, family: str | None = "auto", engine: str = "auto"
) -> Target:
    """Find out how this model is asked.

    Raises:
        RagpairError: It cannot be, or not for this task.
    """
    endpoint = replace(endpoint, retry=RetryPolicy(max_retries=0), max_concurrency=1)
    driver = SyncDriver(endpoint)
    try:
        return driver.run(_connect(endpoint, task, model, family, engine))
    finally:
        driver.close()


def _connect(endpoint: Endpoint, task: Task, model: str | None, family: str | None, engine: str) -> Flow[Target]:
    if endpoint.is_local:
        dialect = DIALECTS["local"]
    else:
        dialect = DIALECTS[engine] if engine != "auto" else (yield from detect())
    served = yield from dialect.inspect(model, task)
    if task == "embed":
        prompt = resolve.prompt(resolve.embedding_match(family, model, served), "document", None, None)
        truncate = dialect.truncates and not prompt.suffix
        cut_at = partial(_cut_at, dialect, served, prompt) if truncate else None
        return Target(endpoint, partial(_embed, dialect, served, prompt, truncate), cut_at=cut_at)
    match = resolve.reranker_match(family, model, served)
    wish = resolve.wish(match, served, None, raw=True, declared=family is None)
    plan = yield from dialect.plan_scores(served, wish)
    return Target(endpoint, partial(_score, dialect, served, plan), beside=1)


def _embed(dialect: Dialect, served: Served, prompt: Prompt, truncate: bool, texts: Sequence[str]) -> Flow[None]:
    rendered = [prompt.render(text) for text in texts]
    reply = yield from send(dialect.embed_call(served, rendered, dimensions=None, truncate=truncate))
    if not reply.ok:
        raise dialect.refusal(reply, served, "embed")
    dialect.read_embeddings(reply, len(texts))


def _cut_at(dialect: Dialect, served: Served, prompt: Prompt, text: str) -> Flow[int | None]:
    """The server's limit, unless the text is known to fit."""
    rendered = prompt.render(text)
    if served.limit is None or len(rendered.encode()) + PAIR_SPECIALS <= served.limit:  # a token is a byte at least
        return None
    count = yield from count_tokens(dialect, served, rendered)
    return None if count is not None and count <= served.limit else served.limit


def _score(dialect: Dialect, served: Served, plan: ScorePlan, texts: Sequence[str]) -> Flow[None]:
    """One request, or one after another on an engine that takes fewer documents at a time."""
    query, documents = texts[0], texts[1:]
    size = plan.per_call or len(documents)
    for start in range(0, len(documents), size):
        some = documents[start : start + size]
        reply = yield from send(dialect.score_call(served, plan, query, some))
        if not reply.ok:
            raise dialect.refusal(reply, served, "rerank")
        dialect.read_scores(plan, reply, len(some))


def measure(
    target: Target,
    texts: Iterator[str],
    *,
    concurrency: int,
    batch_size: int,
    requests: int,
    answered: Callable[[], None] = lambda: None,
) -> Run:
    """One setting: a warm-up, then `requests` requests.

    Args:
        target: The model.
        texts: Without end.
        concurrency: Requests in flight.
        batch_size: Texts, or documents, in a request.
        requests: How many, warm-up not counted.
        answered: Called after each.

    Raises:
        RagpairError: What no busy server explains: the workload or the server is wrong.
    """
    size = batch_size + target.beside
    batches = [[next(texts) for _ in range(size)] for _ in range(requests + concurrency)]
    return asyncio.run(_measure(target, batches, concurrency, batch_size, answered))


async def _measure(
    target: Target,
    batches: Sequence[Sequence[str]],
    concurrency: int,
    batch_size: int,
    answered: Callable[[], None],
) -> Run:
    drivers = [AsyncDriver(target.endpoint) for _ in range(concurrency)]
    latencies: list[float] = []
    failed = 0

    async def work(driver: AsyncDriver, pending: Iterator[Sequence[str]]) -> None:
        nonlocal failed
        for batch in pending:
            start = time.perf_counter()
            try:
                await driver.run(target.request(batch))
            except (EndpointOverloaded, EndpointUnreachable):
                failed += 1
            else:
                latencies.append(time.perf_counter() - start)
            answered()

    warm = zip(drivers, batches, strict=False)  # opens every connection; what fails here is no matter of load
    await asyncio.gather(*(driver.run(target.request(batch)) for driver, batch in warm))
    longest = max((text for batch in batches for text in batch), key=len)
    cut_at = None if target.cut_at is None else await drivers[0].run(target.cut_at(longest))
    pending = iter(batches[concurrency:])
    start = time.perf_counter()
    await asyncio.gather(*(work(driver, pending) for driver in drivers))
    seconds = time.perf_counter() - start
    for driver in drivers:
        await driver.close()
    return Run(concurrency, batch_size, tuple(latencies), failed, seconds, cut_at)
