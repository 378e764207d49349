"""Which HTTP client, at which batch size, costs the least CPU on large replies.

    python -m benchmarks.transport --texts 2048 --batches 32 64 128 --concurrency 4 8

What it said, and what was chosen after it, is in transport.md.
"""

import argparse
import itertools
import math
from collections.abc import Sequence
from functools import partial

from .clients import CLIENTS, DECODERS, Job
from .measure import Timer, in_rounds, median, spread
from .report import Section, machine, script, table
from .stub import Settings, running_stub

Cell = tuple[int, int, str, str]


def measure(
    texts: int, dims: int, rounds: int, batches: Sequence[int], concurrency: Sequence[int], only: Sequence[str]
) -> Section:
    """All clients, batch sizes and decoders."""
    passages = [f"text number {i}, a short passage about nothing in particular" for i in range(texts)]
    cells: list[Cell] = list(itertools.product(concurrency, batches, DECODERS, only))
    with running_stub(Settings(dims=dims)) as url:

        def run(cell: Cell, timer: Timer) -> object:
            width, batch, decoder, name = cell
            return CLIENTS[name](Job(f"{url}/v1/embeddings", passages, dims, batch, width, decoder), timer)

        measured = in_rounds({cell: partial(run, cell) for cell in cells}, rounds)
    best = min((median(measured[cell]) for cell in cells if cell[2:] == ("binascii", "aiohttp")), default=math.nan)
    rows = []
    for cell in cells:
        samples = measured[cell]
        if samples.failure:
            rows.append([*map(str, cell), samples.failure, "-", "-"])
            continue
        ratio = f"{median(samples) / best:.2f}"
        factor = 1e6 / texts
        rows.append([*map(str, cell), spread(samples.cpu, factor), spread(samples.wall, factor), ratio])
    head = ("in flight", "batch", "decoder", "client", "CPU us/text", "wall us/text", "to the best aiohttp")
    return Section(f"{table(head, rows)}\n\n{machine('aiohttp', 'httpx-aiohttp', 'httpx2', 'pybase64')}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="CPU a text by HTTP client, batch size and decoder.")
    parser.add_argument("--texts", type=int, default=2048)
    parser.add_argument("--dims", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8])
    parser.add_argument("--only", nargs="+", choices=list(CLIENTS), default=list(CLIENTS))
    script(parser, measure)


if __name__ == "__main__":
    main()
