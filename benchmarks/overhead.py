"""What a client costs: CPU and wall time a text, beside the least code that does the same work, and beside its peers.

python -m benchmarks.overhead --dims 1024
"""

import argparse
import asyncio
import gc
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from .clients import Client, Job, Result, aiohttp_client, httpx_async, httpx_over_aiohttp, httpx_threads
from .measure import Samples, Timer, in_rounds, middle, ratios, spread
from .peers import Library, others, ours
from .report import Section, Target, at_most, machine, script, table
from .stub import Settings, running_stub

# So many numbers a round, whatever the width: as much work for the decoders, and lists that fit into memory.
NUMBERS = 4 * 2**20
WARM_UP = 1024  # texts: enough for every client to open all its connections
BATCH, IN_FLIGHT = 128, 8  # of the hand-written clients

ABOUT = """\
Microseconds a text of the client's process, median (minimum-maximum) of {rounds} rounds, all clients in turn; ratios
are made round by round. The server answers at once and from memory, in a process of its own. "Limit" is CPU over that
of the hand-written client on the same HTTP library (httpx with orjson and pybase64, 128 texts x 8 requests in flight),
of the same colour, that returns the same: the array as it is, or the lists of floats that LangChain and LlamaIndex
want. "Ours" is CPU of what ragpair offers in a client's place, over the client's own."""

HAND_WRITTEN: dict[str, tuple[Client, str]] = {
    "hand-written, httpx, async": (httpx_async, "pybase64"),
    "hand-written, httpx, threads": (httpx_threads, "pybase64"),
    "hand-written, httpx over aiohttp's transport, async": (httpx_over_aiohttp, "pybase64"),
    "hand-written, aiohttp, base64 of the standard library": (aiohttp_client, "binascii"),
    "hand-written, aiohttp, pybase64": (aiohttp_client, "pybase64"),
}
LIMITS = {"async": "hand-written, httpx, async", "sync": "hand-written, httpx, threads"}
AIOHTTP = "hand-written, aiohttp, base64 of the standard library"
AIOHTTP_FAST = "hand-written, aiohttp, pybase64"


def measure(dims: Sequence[int], rounds: int, only: str) -> Section:
    """All clients at all widths."""
    tables, targets = [], []
    for width in dims:
        rows, found = _at_width(width, rounds, only)
        tables.append(f"### {width} numbers a vector, {NUMBERS // width:,} texts\n\n{rows}")
        targets += found
    packages = ("aiohttp", "langchain-openai", "langchain-ollama", "llama-index-core", "openai", "litellm")
    return Section("\n\n".join([ABOUT.format(rounds=rounds), *tables, machine(*packages)]), targets)


def _at_width(dims: int, rounds: int, only: str) -> tuple[str, list[Target]]:
    texts = [f"text number {i}, a short passage about nothing in particular" for i in range(NUMBERS // dims)]
    libraries = [library for library in (*ours(), *others()) if only in library.name]
    with running_stub(Settings(dims=dims)) as url, asyncio.Runner() as runner:
        contenders: dict[tuple[str, str], Callable[[Timer], object]] = {}
        for name, (client, decoder) in HAND_WRITTEN.items():
            for returns in ("array", "lists") if name in LIMITS.values() else ("array",):
                job = Job(f"{url}/v1/embeddings", texts, dims, BATCH, IN_FLIGHT, decoder, returns == "lists")
                contenders[name, returns] = partial(_hand_written, client, job)
        for library in libraries:
            contenders[library.name, library.returns] = partial(_library, library, url, texts, dims, runner)
        measured = in_rounds(contenders, rounds)
    rows = [_row(name, returns, "", measured, len(texts)) for name, returns in contenders if name in HAND_WRITTEN]
    rows += [_row(library.name, library.returns, library.note, measured, len(texts), library) for library in libraries]
    head = ("client", "returns", "CPU us/text", "limit", "ours", "wall us/text", "note")
    return table(head, rows), _targets(dims, libraries, measured)


def _hand_written(client: Client, job: Job, timer: Timer) -> None:
    _check(client(job, timer), len(job.texts), job.dims)


def _library(library: Library, url: str, texts: Sequence[str], dims: int, runner: asyncio.Runner, timer: Timer) -> None:
    """A fresh object each time; made, connected and warmed up before the clock starts."""
    embed = library.make(url)

    async def awaited() -> Any:
        await embed(list(texts[:WARM_UP]))
        gc.collect()
        with timer:
            return await embed(list(texts))

    def called() -> Any:
        embed(list(texts[:WARM_UP]))
        gc.collect()
        with timer:
            return embed(list(texts))

    _check(runner.run(awaited()) if library.colour == "async" else called(), len(texts), dims)


def _check(result: Result, count: int, dims: int) -> None:
    if (len(result), len(result[0])) != (count, dims):
        raise ValueError(f"returned {len(result)} vectors of {len(result[0])}")


def _row(
    name: str,
    returns: str,
    note: str,
    measured: Mapping[tuple[str, str], Samples],
    texts: int,
    library: Library | None = None,
) -> list[str]:
    samples = measured[name, returns]
    if samples.failure:
        return [name, returns, "-", "-", "-", "-", samples.failure]
    colour = library.colour if library else "sync" if name == LIMITS["sync"] else "async"
    limit = spread(ratios(samples, measured[LIMITS[colour], returns]), digits=2)
    rival = measured.get((library.rival or "", returns)) if library else None
    beside = spread(ratios(rival, samples), digits=2) if rival else "-"
    factor = 1e6 / texts
    return [name, returns, spread(samples.cpu, factor), limit, beside, spread(samples.wall, factor), note]


def _targets(dims: int, libraries: Sequence[Library], measured: Mapping[tuple[str, str], Samples]) -> list[Target]:
    def ratio(ours: tuple[str, str], theirs: tuple[str, str]) -> float:
        return middle(ratios(measured[ours], measured[theirs])) if ours in measured else math.nan

    targets = []
    for colour, limit in LIMITS.items():
        promise = f"CPU a text, {colour}, {dims} numbers: at most 1.15x hand-written on httpx"
        targets.append(at_most(promise, ratio((f"ragpair, {colour}", "array"), (limit, "array")), 1.15))
    for colour in LIMITS:
        for name in (AIOHTTP, AIOHTTP_FAST):
            what = name.removeprefix("hand-written, ")
            promise = f"CPU a text, {colour}, {dims} numbers: at most 1.5x hand-written on {what}"
            targets.append(at_most(promise, ratio((f"ragpair, {colour}", "array"), (name, "array")), 1.5))
    shares = {
        library.name: ratio((library.rival, library.returns), (library.name, library.returns))
        for library in libraries
        if library.rival and not library.tuned
    }
    shares = {name: share for name, share in shares.items() if not math.isnan(share)}
    if shares:
        worst = max(shares, key=lambda name: shares[name])
        promise = f"CPU a text, {dims} numbers: at most 0.6x of every peer's default (closest: {worst})"
        targets.append(at_most(promise, shares[worst], 0.6))
    return targets


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog=__spec__.name, description="CPU and wall time a text, by client.")
    parser.add_argument("--dims", type=int, nargs="+", default=[384, 1024, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only libraries whose name holds this")
    script(parser, measure)


if __name__ == "__main__":
    main()
