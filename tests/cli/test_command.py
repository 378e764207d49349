"""What all commands have in common: help, exit codes, JSON, and what they do without the frameworks."""

import subprocess
import sys

import pytest

from ragpair.cli import output
from ragpair.testing import FakeServer

from .conftest import Command

COMMANDS = ["doctor", "bench", "embed", "rerank", "models", "demo"]
FRAMEWORKS = ["langchain_core", "llama_index", "qdrant_client", "onnxruntime", "tokenizers", "sklearn", "matplotlib"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option_and_the_exit_codes(ragpair: Command, name) -> None:
    ran = ragpair(name, "--help")
    assert ran.code == 0
    assert "Exit codes" in ran.words
    for line in ran.out.splitlines():
        if line.startswith("│ --"):
            assert len(line.strip("│ ").split("  ")) > 1, line


@pytest.mark.parametrize("name", ["doctor", "bench", "embed", "rerank"])
def test_help_has_examples(ragpair: Command, name) -> None:
    assert f"ragpair {name} " in ragpair(name, "--help").out.split("For example:")[1]


def test_a_wrong_option_is_a_matter_of_usage(ragpair: Command) -> None:
    assert ragpair("doctor", "--nonsense").code == 2
    assert ragpair("doctor").code == 2


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("pass model=, one of 'a'.", "pass --model, one of 'a'."),
        ("for instance family='qwen3-reranker'.", "for instance --family='qwen3-reranker'."),
        ("family=None says that it wants none.", "--family none says that it wants none."),
        ("lower max_concurrency= or batch_size=, or wait", "lower --concurrency or --batch-size, or wait"),
        ("a logit of 3 == model", "a logit of 3 == model"),
    ],
)
def test_messages_speak_of_options(said, shown) -> None:
    assert output.as_options(said) == shown


def test_only_what_the_command_needs_is_needed() -> None:
    """In a process in which nothing else can be imported."""
    code = f"import sys\nfor name in {FRAMEWORKS}: sys.modules[name] = None\nfrom ragpair.cli import main\nmain()\n"

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=50)

    with FakeServer("vllm", dims=1024) as embedder, FakeServer("vllm", task="answers") as reranker:
        runs = [
            run("doctor", embedder.url, reranker.url),
            run("bench", embedder.url, "--requests", "2", "--batch-size", "1"),
            run("embed", "--base-url", embedder.url, stdin="one\n"),
            run("rerank", "--base-url", reranker.url, "--query", "q", stdin="d\n"),
            run("models", "qwen3-embedding"),
        ]
        for ran in runs:
            assert ran.returncode == 0, ran.stderr
        demo = run("demo", "--base-url", embedder.url, "--language", "en")
    assert demo.returncode == 1
    assert 'pip install "ragpair[all]"' in " ".join(demo.stderr.split())


def test_help_waits_for_no_numpy() -> None:
    code = "import sys, ragpair.cli; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=50).returncode == 0


@pytest.mark.parametrize("missing", ["rich", "typer"])
def test_without_its_extra_the_command_says_what_to_install(missing) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from ragpair.cli import main"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert 'pip install "ragpair[cli]"' in ran.stderr


def test_warnings_are_messages() -> None:
    """In a process of its own, where warnings are no errors."""
    with FakeServer("vllm", model="acme-9000") as server:
        command = [sys.executable, "-m", "ragpair.cli", "embed", "--base-url", server.url]
        ran = subprocess.run(command, input="one\n", capture_output=True, text=True, timeout=50)
    assert ran.returncode == 0
    assert ran.stderr.startswith("warning: 'acme-9000' is not in the catalogue")
    assert ran.stderr.count("\n") == 1
    assert ".py" not in ran.stderr
