"""The examples of docs/cli.md and of every --help run as they stand there, against servers that answer."""

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from ragpair.cli import bench, doctor, embed, rerank
from ragpair.testing import FakeServer

from .conftest import Command

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
OURS = ["doctor", "bench", "embed", "rerank"]
HELP = {
    "doctor": doctor.doctor,
    "bench": bench.bench,
    "embed": embed.embed,
    "rerank": rerank.rerank,
}


def section(name: str) -> str:
    """The commands of one section of the docs."""
    text = re.split(r"^## ", DOCS, flags=re.MULTILINE)
    (found,) = [one for one in text if one.startswith(f"{name}\n")]
    return "".join(re.findall(r"```bash\n(.*?)```", found, re.DOTALL))


def examples(name: str) -> str:
    """The commands of one --help."""
    after = (HELP[name].__doc__ or "").split("For example:")[1]
    return "\n".join(line.strip() for line in after.splitlines())


@pytest.fixture
def addresses(ragpair: Command) -> Iterator[dict[str, str]]:
    """What the examples call, and what answers; their files lie in the folder."""
    Path("texts.txt").write_text("one\ntwo\nthree\n")
    Path("documents.txt").write_text("bananas\nyour parcel is here\n")
    rows = {
        "articles.jsonl": [{"id": n, "body": f"text {n}"} for n in range(40)],
        "documents.jsonl": [{"id": n, "body": f"text {n}"} for n in range(40)],
        "pairs.jsonl": [{"query": "parcel", "documents": ["bananas", "a parcel"]}],
    }
    for name, lines in rows.items():
        Path(name).write_bytes(b"\n".join(map(orjson.dumps, lines)))
    with FakeServer("vllm") as embedder, FakeServer("vllm") as replica, FakeServer("vllm", task="answers") as reranker:
        yield {
            "http://localhost:8000": embedder.url,
            "http://localhost:8001": reranker.url,
            "http://gpu1:8000": embedder.url,
            "http://gpu2:8000": replica.url,
        }


def commands(script: str) -> Iterator[tuple[list[str], bytes]]:
    """The arguments of each `ragpair`, and what an `echo` before it pipes in; where the output goes is left out."""
    for line in script.splitlines():
        words = shlex.split(line.partition(" > ")[0], comments=True)
        if words:
            before, after = words[: words.index("ragpair")], words[words.index("ragpair") + 1 :]
            yield after, f"{before[1]}\n".encode() if before[:1] == ["echo"] else b""


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("where", [section, examples])
def test_examples_run(ragpair: Command, addresses, monkeypatch, where, name) -> None:
    pytest.importorskip("matplotlib")
    found = list(commands(where(name)))
    assert len(found) >= 2
    for arguments, stdin in found:
        assert arguments[0] == name
        there = [addresses.get(word, word) for word in arguments]
        assert not any("localhost" in word or "gpu" in word for word in there)
        if name == "bench":
            there += ["--requests", "2", "--words", "4"]
        if name in ("embed", "rerank") and "--base-url" not in there:
            monkeypatch.setenv("RAGPAIR_BASE_URL", addresses["http://localhost:8000"])
        ran = ragpair(*there, stdin=stdin)
        assert ran.code == 0, ran.words


@pytest.mark.parametrize("name", OURS)
def test_docs_name_every_option_that_is_not_told_by_help_alone(name) -> None:
    """Each option that a command has by itself, and that changes what it does, is mentioned in its section."""
    common = {"model", "family", "engine", "api_key", "timeout", "json", "urls", "url", "source", "base_url"}
    tuning = {"batch_size", "concurrency", "seed", "dimensions", "instruction", "out"}
    own = set(inspect.signature(HELP[name]).parameters) - common - tuning
    text = DOCS.split(f"## {name}\n")[1].split("\n## ")[0]
    assert [option for option in own if f"--{option.replace('_', '-')}" not in text] == []
