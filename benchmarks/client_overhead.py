"""What a client costs: CPU time and wall time a text, against the least code that does the same work.

    python benchmarks/client_overhead.py
    python benchmarks/client_overhead.py --texts 8192 --runs 5 --json overhead.json

One run is one machine's answer: compare rows of one table, not tables. Nothing is asserted. See README.md for what the
rows are and what to mind.
"""

import argparse
import asyncio
import gc
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stub_server import MODEL, running_stub
from transport import DECODERS, Job, Timer, aiohttp_client, httpx_async

WARM_UP = 1024  # texts: enough for every client to open all its connections
REFERENCE = "hand-written, aiohttp"


@dataclass(frozen=True)
class Work:
    """What every contender is asked to do."""

    url: str
    texts: Sequence[str]
    dims: int
    batch: int
    concurrency: int
    runner: asyncio.Runner


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Attributes:
        name: As printed.
        returns: "array" or "lists"; it is compared with the hand-written client that returns the same.
        needs: Modules that must be importable.
        measure: Does the work once and fills the timer.
        note: What is not at its default, and what its defaults are where that explains the number.
    """

    name: str
    returns: str
    needs: tuple[str, ...]
    measure: Callable[[Work, Timer], Any]
    note: str = ""


@dataclass
class Row:
    """What was measured of one contender, in microseconds a text."""

    contender: Contender
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    missing: str = ""


# --- how each is driven ----------------------------------------------------------------------------------------------


def hand_written(
    send: Callable[[Job, Timer], Any], *, as_lists: bool = False, decoder: str = "binascii"
) -> Callable[[Work, Timer], Any]:
    """The minimal client of transport.py."""

    def measure(work: Work, timer: Timer) -> Any:
        url = f"{work.url}/v1/embeddings"
        decode = DECODERS[decoder]
        return send(Job(url, work.texts, work.dims, work.batch, work.concurrency, decode, as_lists), timer)

    return measure


def sync(make: Callable[[str], Callable[[list[str]], Any]]) -> Callable[[Work, Timer], Any]:
    """A fresh object each time; made and warmed up before the clock starts."""

    def measure(work: Work, timer: Timer) -> Any:
        embed = make(work.url)
        embed(list(work.texts[:WARM_UP]))
        gc.collect()
        with timer:
            return embed(list(work.texts))

    return measure


def tasks(make: Callable[[str], Callable[[list[str]], Awaitable[Any]]]) -> Callable[[Work, Timer], Any]:
    """The same on the one event loop of the benchmark."""

    async def run(work: Work, timer: Timer) -> Any:
        embed = make(work.url)
        await embed(list(work.texts[:WARM_UP]))
        gc.collect()
        with timer:
            return await embed(list(work.texts))

    return lambda work, timer: work.runner.run(run(work, timer))


# --- the contenders --------------------------------------------------------------------------------------------------


def ragpair_embedder(url: str, engine: str = "auto") -> Any:
    """The core."""
    from ragpair import Embedder

    return Embedder(url, MODEL, engine=engine)  # type: ignore[arg-type]


def langchain_ragpair(url: str) -> Any:
    """Our LangChain adapter."""
    from langchain_ragpair import RagpairEmbeddings

    return RagpairEmbeddings(base_url=url, model=MODEL)


def llamaindex_ragpair(url: str) -> Any:
    """Our LlamaIndex adapter."""
    from llamaindex_ragpair import RagpairEmbedding

    return RagpairEmbedding(base_url=url, model=MODEL)


def langchain_openai(url: str) -> Any:
    """LangChain's OpenAI client; with its default it would fetch a tokenizer and send token ids."""
    from langchain_openai import OpenAIEmbeddings
    from pydantic import SecretStr

    return OpenAIEmbeddings(
        base_url=f"{url}/v1", api_key=SecretStr("none"), model=MODEL, check_embedding_ctx_length=False
    )


def langchain_ollama(url: str) -> Any:
    """LangChain's Ollama client."""
    from langchain_ollama import OllamaEmbeddings

    return OllamaEmbeddings(base_url=url, model=MODEL)


def llamaindex_openai_like(url: str) -> Any:
    """LlamaIndex's client for OpenAI-shaped servers."""
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    return OpenAILikeEmbedding(api_base=f"{url}/v1", api_key="none", model_name=MODEL)


def contenders(batch: int) -> Iterable[Contender]:
    """All rows, in the order of the table; the first of each kind of result is what the others are compared with."""
    own = f"{batch} texts a request"
    for returns in ("array", "lists"):
        lists = returns == "lists"
        yield Contender(
            f"{REFERENCE} ({returns})", returns, ("aiohttp",), hand_written(aiohttp_client, as_lists=lists), own
        )
        yield Contender(
            f"hand-written, httpx ({returns})", returns, ("httpx",), hand_written(httpx_async, as_lists=lists), own
        )
    yield Contender(
        "hand-written, aiohttp, pybase64",
        "array",
        ("aiohttp", "pybase64"),
        hand_written(aiohttp_client, decoder="pybase64"),
        own,
    )
    core = ("ragpair",)
    yield Contender("ragpair.Embedder, async", "array", core, tasks(lambda url: ragpair_embedder(url).aembed_documents))
    yield Contender("ragpair.Embedder, sync", "array", core, sync(lambda url: ragpair_embedder(url).embed_documents))
    yield Contender(
        "ragpair.Embedder, sync, Ollama",
        "array",
        core,
        sync(lambda url: ragpair_embedder(url, "ollama").embed_documents),
        "/api/embed",
    )
    ours = ("langchain_ragpair", "langchain_core")
    yield Contender(
        "langchain_ragpair, async", "lists", ours, tasks(lambda url: langchain_ragpair(url).aembed_documents)
    )
    yield Contender("langchain_ragpair, sync", "lists", ours, sync(lambda url: langchain_ragpair(url).embed_documents))
    openai, no_ids = ("langchain_openai",), "check_embedding_ctx_length=False"
    yield Contender(
        "LangChain OpenAIEmbeddings, async",
        "lists",
        openai,
        tasks(lambda url: langchain_openai(url).aembed_documents),
        no_ids,
    )
    yield Contender(
        "LangChain OpenAIEmbeddings, sync",
        "lists",
        openai,
        sync(lambda url: langchain_openai(url).embed_documents),
        no_ids,
    )
    ollama = ("langchain_ollama",)
    yield Contender(
        "LangChain OllamaEmbeddings, async",
        "lists",
        ollama,
        tasks(lambda url: langchain_ollama(url).aembed_documents),
        "/api/embed, one request",
    )
    yield Contender(
        "LangChain OllamaEmbeddings, sync",
        "lists",
        ollama,
        sync(lambda url: langchain_ollama(url).embed_documents),
        "/api/embed, one request",
    )
    index = ("llamaindex_ragpair", "llama_index.core")
    yield Contender(
        "llamaindex_ragpair, async",
        "lists",
        index,
        tasks(lambda url: llamaindex_ragpair(url).aget_text_embedding_batch),
    )
    yield Contender(
        "llamaindex_ragpair, sync",
        "lists",
        index,
        sync(lambda url: llamaindex_ragpair(url).get_text_embedding_batch),
    )
    like = ("llama_index.embeddings.openai_like",)
    yield Contender(
        "LlamaIndex OpenAILikeEmbedding, async",
        "lists",
        like,
        tasks(lambda url: llamaindex_openai_like(url).aget_text_embedding_batch),
    )
    yield Contender(
        "LlamaIndex OpenAILikeEmbedding, sync",
        "lists",
        like,
        sync(lambda url: llamaindex_openai_like(url).get_text_embedding_batch),
    )


# --- measuring -------------------------------------------------------------------------------------------------------


def installed(module: str) -> bool:
    """Whether the module can be found."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def measure_once(row: Row, work: Work, *, counts: bool) -> None:
    """One round of one contender; what fails is reported in the table, not raised."""
    timer = Timer()
    gc.collect()
    try:
        result = row.contender.measure(work, timer)
    except ImportError as exc:
        row.missing = f"not installed ({str(exc).split(' (')[0]})"
        return
    except Exception as exc:
        row.missing = f"failed: {type(exc).__name__}: {str(exc)[:80]}"
        return
    if (len(result), len(result[0])) != (len(work.texts), work.dims):
        row.missing = f"failed: returned {len(result)} vectors of {len(result[0])}"
    elif counts:
        row.cpu.append(timer.cpu / len(work.texts) * 1e6)
        row.wall.append(timer.wall / len(work.texts) * 1e6)


def measure_all(work: Work, runs: int, only: str) -> list[Row]:
    """Rounds over all contenders, so that what else the machine does falls on each alike; the first is not counted."""
    rows = [Row(contender) for contender in contenders(work.batch) if only in contender.name]
    for row in rows:
        absent = [module for module in row.contender.needs if not installed(module)]
        row.missing = f"not installed ({', '.join(absent)})" if absent else ""
    for number in range(runs + 1):
        for row in rows:
            if not row.missing:
                measure_once(row, work, counts=number > 0)
        if number == 0:
            gc.collect()
            gc.freeze()  # the modules of one framework must not slow the collections of another
        print(f"round {number} of {runs} done", file=sys.stderr)
    return rows


def import_seconds(statement: str, runs: int = 5) -> list[float]:
    """Wall time of a fresh interpreter that runs one statement and ends."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return times[1:]  # the first reads the disk


def import_report() -> dict[str, float]:
    """Milliseconds above an empty interpreter."""
    report: dict[str, float] = {}
    empty = statistics.median(import_seconds("pass"))
    for statement in ("import ragpair", "import httpx, numpy, orjson"):
        try:
            report[statement] = (statistics.median(import_seconds(statement)) - empty) * 1e3
        except subprocess.CalledProcessError:
            continue
    return report


# --- the report ------------------------------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> str:
    """Median, minimum and maximum."""
    return f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})"


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, columns padded for the terminal."""
    reference: dict[str, float] = {}
    for row in rows:
        if row.contender.name == f"{REFERENCE} ({row.contender.returns})" and row.cpu:
            reference[row.contender.returns] = statistics.median(row.cpu)
    lines = [["client", "returns", "CPU us/text", "ratio", "wall us/text", "note"]]
    for row in rows:
        contender = row.contender
        if row.missing or not row.cpu:
            lines.append([contender.name, contender.returns, "-", "-", "-", row.missing])
            continue
        base = reference.get(contender.returns)
        ratio = f"{statistics.median(row.cpu) / base:.2f}" if base else "-"
        lines.append([contender.name, contender.returns, spread(row.cpu), ratio, spread(row.wall), contender.note])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="CPU and wall time a text, by client.")
    parser.add_argument("--texts", type=int, default=4096)
    parser.add_argument("--dims", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128, help="texts a request of the hand-written clients")
    parser.add_argument("--concurrency", type=int, default=8, help="requests in flight of the hand-written clients")
    parser.add_argument("--base-ms", type=float, default=15.0, help="the stub's GPU: milliseconds a batch")
    parser.add_argument("--per-text-us", type=float, default=80.0, help="the stub's GPU: microseconds a text")
    parser.add_argument("--only", default="", help="only rows whose name holds this; 'hand' is needed for ratios")
    parser.add_argument("--json", type=Path, help="write what was measured to this file too")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    texts = [f"text number {i}, a short passage about nothing in particular" for i in range(options.texts)]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    with (
        running_stub(options.dims, options.base_ms, options.per_text_us) as url,
        asyncio.Runner() as runner,
    ):
        work = Work(url, texts, options.dims, options.batch, options.concurrency, runner)
        rows = measure_all(work, options.runs, options.only)
    imports = import_report()
    print(
        f"{options.texts} texts, {options.dims} dimensions, median of {options.runs} (min-max); simulated GPU "
        f"{options.base_ms:g} ms a batch + {options.per_text_us:g} us a text; Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, load {load:.1f} at the start\n"
    )
    print(table(rows))
    print()
    for statement, milliseconds in imports.items():
        print(f"{statement}: {milliseconds:.0f} ms")
    if not any(row.cpu for row in rows):
        print("nothing could be measured")
    if options.json:
        document = {
            "settings": {name: value for name, value in vars(options).items() if name != "json"},
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "load": load,
            "import_ms": imports,
            "rows": [
                {
                    "name": row.contender.name,
                    "returns": row.contender.returns,
                    "note": row.contender.note,
                    "missing": row.missing,
                    "cpu_us": row.cpu,
                    "wall_us": row.wall,
                }
                for row in rows
            ],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
