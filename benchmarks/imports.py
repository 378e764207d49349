"""How long an import takes: fresh interpreters, beside an empty one.

python -m benchmarks.imports
"""

import argparse
import math
import subprocess
import sys
from functools import partial

from .measure import Samples, Timer, in_rounds, median
from .report import Section, at_most, machine, script, table

# What the adapters import of their frameworks, in a program that uses the framework anyway.
LANGCHAIN = (
    "from langchain_core.embeddings import Embeddings; from langchain_core.documents import Document; "
    "from langchain_core.documents.compressor import BaseDocumentCompressor; "
    "from langchain_core.runnables import RunnableLambda; import langchain_core.vectorstores"
)
LLAMAINDEX = "import llama_index.core"
STATEMENTS = {
    "import ragpair": "",
    "from ragpair import Embedder, Reranker": "",
    "from ragpair import Embedder; Embedder('http://localhost:8000')": "",
    "import httpx, numpy, orjson, pybase64": "",
    LANGCHAIN: "",
    f"{LANGCHAIN}; import langchain_ragpair": LANGCHAIN,
    LLAMAINDEX: "",
    f"{LLAMAINDEX}; import llamaindex_ragpair": LLAMAINDEX,
    "import langchain_openai": "",
    "import langchain_ollama": "",
    "from llama_index.embeddings.openai_like import OpenAILikeEmbedding": "",
    "import litellm": "",
}
NAMES = {
    LANGCHAIN: "langchain_core's Embeddings, Document, BaseDocumentCompressor, RunnableLambda, VectorStore",
    f"{LANGCHAIN}; import langchain_ragpair": "the same and langchain_ragpair",
    f"{LLAMAINDEX}; import llamaindex_ragpair": "the same and llamaindex_ragpair",
}
ABOUT = """\
Milliseconds of a fresh interpreter that runs the statement and ends, less those of an empty one: medians of {rounds}
rounds, all statements in turn, files in the disk cache. "Adds" is over the framework's own import alone."""


def measure(rounds: int) -> Section:
    """All statements."""
    measured = in_rounds({text: partial(_run, text) for text in ("pass", *STATEMENTS)}, rounds)
    empty = median(measured["pass"], "wall")

    def milliseconds(statement: str, base: float = empty) -> float:
        return (median(measured[statement], "wall") - base) * 1e3

    rows, adds = [], {}
    for statement, base in STATEMENTS.items():
        samples: Samples = measured[statement]
        name = NAMES.get(statement, statement)
        if samples.failure:
            rows.append([name, "-", samples.failure])
            continue
        added = "-"
        if base:
            adds[statement] = milliseconds(statement, median(measured[base], "wall"))
            added = f"{adds[statement]:.0f}"
        low, high = ((wall - empty) * 1e3 for wall in (min(samples.wall), max(samples.wall)))
        rows.append([name, f"{milliseconds(statement):.0f} ({low:.0f}-{high:.0f})", added])
    core = milliseconds("from ragpair import Embedder, Reranker")
    targets = [at_most("from ragpair import Embedder, Reranker: at most 150 ms", core, 150, " ms")]
    for statement, base in STATEMENTS.items():
        if base:
            promise = f"{statement.rpartition(' ')[2]}: adds at most 20 ms to its framework's import"
            targets.append(at_most(promise, adds.get(statement, math.nan), 20, " ms"))
    shown = table(("statement", "ms", "adds"), rows)
    packages = ("langchain-core", "langchain-openai", "langchain-ollama", "llama-index-core", "litellm")
    return Section(f"{ABOUT.format(rounds=rounds)}\n\n{shown}\n\n{machine(*packages)}", targets)


def _run(statement: str, timer: Timer) -> None:
    with timer:
        done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog=__spec__.name, description="Import times.")
    parser.add_argument("--rounds", type=int, default=7)
    script(parser, measure)


if __name__ == "__main__":
    main()
