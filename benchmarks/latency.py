"""What one query and one reranking wait for: ragpair beside bare httpx posts of the same.

python -m benchmarks.latency
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import httpx
import numpy as np
import orjson
import pybase64

from ragpair import Embedder, Reranker

from .clients import JSON, payload
from .measure import Samples, Timer, in_rounds, middle, ratios, spread
from .report import Section, Target, at_most, machine, script, table
from .stub import MODEL, MODELS, Settings, running_stub

QUERY = "where is my parcel, and when will it arrive?"
RERANKER = MODELS["rerank"]
TIMES = 200  # a round
DIMS = 1024

ABOUT = """\
Microseconds a call, median (minimum-maximum) of {rounds} rounds of {times} calls one after another, connections open;
ratios are made round by round. The bare post is a reused httpx client, `client.post(url, content=orjson.dumps(body))`,
orjson and pybase64 on the way back and nothing checked."""


def bare_embedding(body: bytes) -> Any:
    """The least that makes a vector of a reply."""
    rows = orjson.loads(body)["data"]
    return np.frombuffer(pybase64.b64decode(rows[0]["embedding"], validate=True), dtype="<f4")


def bare_scores(body: bytes) -> list[float]:
    """The least that makes scores of a reply."""
    return [row["score"] for row in sorted(orjson.loads(body)["data"], key=lambda row: row["index"])]


def score_payload(documents: Sequence[str]) -> bytes:
    """The body of a `/v1/score` request."""
    return orjson.dumps({"model": RERANKER, "text_1": QUERY, "text_2": documents})


def measure(rounds: int, delays: Sequence[float], documents: Sequence[int]) -> Section:
    """Queries at each delay of the server, and rerankings of each size."""
    parts, targets = [ABOUT.format(rounds=rounds, times=TIMES)], []
    with asyncio.Runner() as runner:
        for delay in delays:
            with running_stub(Settings(dims=DIMS, base_ms=delay)) as url:
                measured = in_rounds(_queries(url, runner), rounds)
            parts += [f"### One query, {DIMS} numbers, a server that takes {delay:g} ms", _shown(measured)]
            targets += _query_targets(measured, delay)
        for count in documents:
            with running_stub(Settings(task="rerank")) as url:
                measured = in_rounds(_rerankings(url, count, runner), rounds)
            parts += [f"### {count:,} documents to rerank, a server that answers at once", _shown(measured)]
    return Section("\n\n".join([*parts, machine("orjson", "pybase64")]), targets)


def _again(call: Callable[[], object], timer: Timer) -> None:
    call()
    with timer:
        for _ in range(TIMES):
            call()


def _awaited(runner: asyncio.Runner, call: Callable[[], Awaitable[object]], timer: Timer) -> None:
    async def run() -> None:
        await call()
        with timer:
            for _ in range(TIMES):
                await call()

    runner.run(run())


def _queries(url: str, runner: asyncio.Runner) -> dict[tuple[str, str], Callable[[Timer], object]]:
    client, aclient = httpx.Client(trust_env=False), httpx.AsyncClient(trust_env=False)
    embedder, route = Embedder(url, MODEL, family=None), f"{url}/v1/embeddings"

    def bare() -> object:
        return bare_embedding(client.post(route, content=payload([QUERY]), headers=JSON).content)

    async def abare() -> object:
        return bare_embedding((await aclient.post(route, content=payload([QUERY]), headers=JSON)).content)

    return {
        ("sync", "bare httpx post"): partial(_again, bare),
        ("sync", "ragpair, Embedder.embed_queries"): partial(_again, lambda: embedder.embed_queries([QUERY])),
        ("async", "bare httpx post"): partial(_awaited, runner, abare),
        ("async", "ragpair, Embedder.aembed_queries"): partial(
            _awaited, runner, lambda: embedder.aembed_queries([QUERY])
        ),
    }


def _rerankings(url: str, count: int, runner: asyncio.Runner) -> dict[tuple[str, str], Callable[[Timer], object]]:
    documents = [f"document {i}: " + "a passage about nothing in particular, " * 6 for i in range(count)]
    client, aclient = httpx.Client(trust_env=False), httpx.AsyncClient(trust_env=False)
    reranker, route = Reranker(url), f"{url}/v1/score"

    def bare(size: int) -> object:
        found = []
        for start in range(0, count, size):
            reply = client.post(route, content=score_payload(documents[start : start + size]), headers=JSON)
            found += bare_scores(reply.content)
        return found

    async def abare() -> object:
        return bare_scores((await aclient.post(route, content=score_payload(documents), headers=JSON)).content)

    return {
        ("sync", "bare httpx post of all"): partial(_again, lambda: bare(count)),
        ("sync", "bare httpx posts of 32, one after another"): partial(_again, lambda: bare(32)),
        ("sync", "ragpair, Reranker.score"): partial(_again, lambda: reranker.score(QUERY, documents)),
        ("async", "bare httpx post of all"): partial(_awaited, runner, abare),
        ("async", "ragpair, Reranker.ascore"): partial(_awaited, runner, lambda: reranker.ascore(QUERY, documents)),
    }


def _shown(measured: Mapping[tuple[str, str], Samples]) -> str:
    rows = []
    bare: dict[str, Samples] = {}  # the first of each colour
    for (colour, name), samples in measured.items():
        if samples.failure:
            rows.append([f"{colour}: {name}", "-", "-", samples.failure])
            continue
        ratio = spread(ratios(samples, bare.setdefault(colour, samples), "wall"), digits=2)
        factor = 1e6 / TIMES
        rows.append([f"{colour}: {name}", spread(samples.wall, factor, 0), ratio, spread(samples.cpu, factor, 0)])
    return table(("call", "wall us", "to the bare post", "CPU us"), rows)


def _query_targets(measured: Mapping[tuple[str, str], Samples], delay: float) -> list[Target]:
    targets = []
    for colour in ("sync", "async"):
        bare, ours = (samples for (c, _), samples in measured.items() if c == colour)
        promise = f"one query, {colour}, server of {delay:g} ms: at most 1.10x a bare post"
        targets.append(at_most(promise, middle(ratios(ours, bare, "wall")), 1.10))
    return targets


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog=__spec__.name, description="Latency over a bare post.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 5.0], help="milliseconds of the server")
    parser.add_argument("--documents", type=int, nargs="+", default=[10, 100, 1000])
    script(parser, measure)


if __name__ == "__main__":
    main()
