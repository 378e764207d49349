"""How long an import takes, in fresh interpreters.

python -m benchmarks.imports
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from functools import partial

from .measure import Timer, in_rounds, median, spread
from .report import Section, at_most, machine, script, table

# What the adapters import of their frameworks, and what a program that uses one has imported anyway.
LANGCHAIN = (
    "from langchain_core.documents import Document; from langchain_core.documents.compressor import "
    "BaseDocumentCompressor; from langchain_core.embeddings import Embeddings; "
    "from langchain_core.runnables import RunnableLambda; from langchain_core.vectorstores import VectorStore"
)
LLAMAINDEX = "import llama_index.core"


@dataclass(frozen=True)
class Import:
    """One row.

    Attributes:
        statement: What is timed.
        after: What is imported before the clock starts.
        most: Milliseconds that the project promises, or None.
        name: In place of the statement.
    """

    statement: str
    after: str = ""
    most: float | None = None
    name: str = ""

    @property
    def shown(self) -> str:
        """For the table."""
        return self.name or f"`{self.statement}`"


IMPORTS = (
    Import("import ragpair"),
    Import("from ragpair import Embedder, Reranker", most=150),
    Import("from ragpair import Embedder; Embedder('http://localhost:8000')"),
    Import("import httpx, numpy, orjson, pybase64", name="what the core depends on: httpx, numpy, orjson, pybase64"),
    Import(LANGCHAIN, name="langchain_core: what an embedding model, a compressor and a vector store are made of"),
    Import("import langchain_ragpair", after=LANGCHAIN, most=20, name="`import langchain_ragpair`, after that"),
    Import("import langchain_openai", after=LANGCHAIN, name="`import langchain_openai`, after that"),
    Import("import langchain_ollama", after=LANGCHAIN, name="`import langchain_ollama`, after that"),
    Import(LLAMAINDEX),
    Import("import llamaindex_ragpair", after=LLAMAINDEX, most=20, name="`import llamaindex_ragpair`, after that"),
    Import("import llama_index.embeddings.openai_like", after=LLAMAINDEX, name="its OpenAILikeEmbedding, after that"),
    Import("import llama_index.embeddings.ollama", after=LLAMAINDEX, name="its OllamaEmbedding, after that"),
    Import("import litellm"),
)
ABOUT = """\
Milliseconds that the statement takes in a fresh interpreter, median (minimum-maximum) of {rounds} rounds, all
statements in turn, files in the disk cache. Rows that say "after that" are what is added to the framework's own
import."""
TIMED = """\
{after}
import time
start = time.perf_counter(), time.process_time()
{statement}
print("took", time.perf_counter() - start[0], time.process_time() - start[1])
"""


def measure(rounds: int) -> Section:
    """All imports."""
    measured = in_rounds({row: partial(_run, row) for row in IMPORTS}, rounds)
    rows, targets = [], []
    for row, samples in measured.items():
        if samples.failure:
            rows.append([row.shown, "-", samples.failure])
        else:
            rows.append([row.shown, spread(samples.wall, 1e3, 0), spread(samples.cpu, 1e3, 0)])
        if row.most is not None:
            promise = f"{row.shown}: at most {row.most:g} ms"
            targets.append(at_most(promise, median(samples, "wall") * 1e3, row.most, " ms"))
    packages = ("langchain-core", "langchain-openai", "langchain-ollama", "llama-index-core", "litellm")
    shown = table(("import", "wall ms", "CPU ms"), rows)
    return Section(f"{ABOUT.format(rounds=rounds)}\n\n{shown}\n\n{machine(*packages)}", targets)


def _run(row: Import, timer: Timer) -> None:
    code = TIMED.format(after=row.after, statement=row.statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    timer.wall, timer.cpu = map(float, done.stdout.rpartition("took ")[2].split())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog=__spec__.name, description="Import times.")
    parser.add_argument("--rounds", type=int, default=7)
    script(parser, measure)


if __name__ == "__main__":
    main()
