"""What a million texts take: memory while `embed_documents_iter` goes through an iterator and nobody keeps the vectors.

    python -m benchmarks.memory --texts 100000

Each run is a process of its own. Its resident memory is looked at every 200 vectors, and tracemalloc's peak in a
run of its own, since tracing triples the time. What is bounded peaks early and stays: the peak over the first twentieth
is set beside the peak over the rest, and the peak of many texts beside that of few.
"""

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ragpair import Embedder

from .report import Section, at_most, machine, script, table
from .stub import MODEL, Settings, running_stub

DIMS = 384
EVERY = 200  # vectors between two looks at the memory
FIRST = 0.05  # the part of the texts in which the peak must have been reached
MIB = 2**20
GROWTH = 1.5  # of the peak that counts as bounded; what keeps all vectors grows tenfold from run to run
RUNS = tuple(itertools.product(("sync", "async"), (False, True)))  # colour, traced

ABOUT = """\
MiB of the client's process over what it had before the first text; {dims} numbers a vector, base64, a server that
answers at once. "First" is the peak over the first twentieth of the texts, "rest" over all others. All vectors at once
would take {all:,.0f} MiB for a million texts."""


@dataclass(frozen=True)
class Run:
    """One run: how it is done, and what came of it.

    Attributes:
        colour: "sync" or "async".
        texts: How many.
        traced: Whether tracemalloc watches, in place of the resident memory.
        first: Peak over the first part, bytes.
        rest: Peak over the rest.
        seconds: How long it took.
    """

    colour: str
    texts: int
    traced: bool
    first: int = 0
    rest: int = 0
    seconds: float = 0.0

    @property
    def peak(self) -> int:
        """Over all texts."""
        return max(self.first, self.rest)


def measure(texts: Sequence[int]) -> Section:
    """Both colours, each number of texts, with and without tracing."""
    done = []
    with running_stub(Settings(dims=DIMS)) as url:
        for count in texts:
            done += [_in_process(url, Run(colour, count, traced)) for colour, traced in RUNS]
    rows, targets = [], []
    for run in done:
        what = "tracemalloc" if run.traced else "resident"
        peaks = (f"{peak / MIB:,.1f}" for peak in (run.first, run.rest))
        rate = f"{run.texts / run.seconds:,.0f}"
        rows.append([f"{run.texts:,}", run.colour, what, *peaks, f"{run.rest / run.first:.2f}", rate])
    for few, many in zip(done, done[-len(RUNS) :], strict=False):
        if few.texts < many.texts:
            what = f"{many.colour}, {'tracemalloc' if many.traced else 'resident'}"
            promise = f"{many.texts:,} texts, {what}: at most {GROWTH}x the peak of {few.texts:,}"
            targets.append(at_most(promise, many.peak / few.peak, GROWTH))
    about = ABOUT.format(dims=DIMS, all=1e6 * DIMS * 4 / MIB)
    shown = table(("texts", "colour", "memory", "first", "rest", "rest to first", "texts/s"), rows)
    return Section(f"{about}\n\n{shown}\n\n{machine()}", targets)


def _in_process(url: str, run: Run) -> Run:
    command = [sys.executable, "-m", "benchmarks.memory", "--run", url, json.dumps(asdict(run))]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return Run(**json.loads(done.stdout))


class Watch:
    """Peaks of memory over the first part of the texts and over the rest."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.peaks = {"first": 0, "rest": 0}
        self.base = _resident()
        if run.traced:
            tracemalloc.start()

    def look(self, index: int) -> None:
        """Take note after this vector."""
        if (index + 1) % EVERY:
            return
        if self.run.traced:
            now = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
        else:
            now = _resident() - self.base
        part = "first" if index < self.run.texts * FIRST else "rest"
        self.peaks[part] = max(self.peaks[part], now)


def _resident() -> int:
    """Bytes of this process in memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def _passages(count: int) -> Iterator[str]:
    return (f"text number {i}, a short passage about nothing in particular" for i in range(count))


def _sync(url: str, run: Run) -> Watch:
    with Embedder(url, MODEL, family=None) as embedder:
        embedder.embed_documents(["a text"])
        watch = Watch(run)
        for index, _ in embedder.embed_documents_iter(_passages(run.texts)):
            watch.look(index)
    return watch


async def _async(url: str, run: Run) -> Watch:
    async with Embedder(url, MODEL, family=None) as embedder:
        await embedder.aembed_documents(["a text"])
        watch = Watch(run)
        async for index, _ in embedder.aembed_documents_iter(_passages(run.texts)):
            watch.look(index)
    return watch


def _alone(url: str, run: Run) -> Run:
    """The work of a process of its own."""
    begin = time.perf_counter()
    watch = _sync(url, run) if run.colour == "sync" else asyncio.run(_async(url, run))
    return Run(run.colour, run.texts, run.traced, **watch.peaks, seconds=time.perf_counter() - begin)


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--run"]:
        warnings.simplefilter("ignore")
        print(json.dumps(asdict(_alone(sys.argv[2], Run(**json.loads(sys.argv[3]))))))
        return
    parser = argparse.ArgumentParser(prog=__spec__.name, description="Memory of a million texts.")
    parser.add_argument("--texts", type=int, nargs="+", default=[100_000, 1_000_000], help="from 10000")
    script(parser, measure)


if __name__ == "__main__":
    main()
