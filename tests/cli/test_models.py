"""`ragpair models`: finds what is there, shows prompts to the last blank, and cuts nothing in a pipe."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ragpair import cli
from ragpair.catalog import families


def run(*words: str) -> str:
    result = CliRunner().invoke(cli.app, ["models", *words])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_the_list_has_every_family():
    lines = run().splitlines()
    assert {line.split()[0] for line in lines[1:-1]} == set(families())
    assert lines[-1].startswith(f"{len(families())} families")


def test_blanks_and_ends_of_lines_can_be_seen():
    lines = [line.strip() for line in run("Qwen3-Embedding-0.6B").splitlines()]
    assert "query: Instruct:·{instruction}↵Query:{text}" in lines
    assert "document: {text}" in lines
    assert any(line.endswith("<think>↵↵</think>↵↵") for line in run("qwen3-reranker").splitlines())


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("BAAI/bge-m3", "bge-m3"),
        ("BGE-M3", "bge-m3"),
        ("all-minilm:22m", "sentence-transformers-classics"),
        ("kalm-reranker", "kalm-reranker-v1"),
    ],
)
def test_it_is_found_by_repository_family_and_ollama_name(name, family):
    assert run(name).startswith(f"{family} (")


def test_models_of_one_family_with_prompts_of_their_own_show_each():
    shown = run("bge-code-and-reasoner")
    assert "query of BAAI/bge-code-v1: <instruct>{instruction}↵<query>{text}" in shown
    assert "query of BAAI/bge-reasoner-embed-qwen3-8b-0923: Instruct:·{instruction}↵Query:·{text}" in shown
    assert shown.count("document") == 1


def test_each_engine_says_how_or_why_not():
    lines = [line.strip() for line in run("bge-reranker-v2-m3").splitlines()]
    assert "vLLM: vllm serve BAAI/bge-reranker-v2-m3" in lines
    assert any(line.startswith("SGLang: sglang serve --model-path BAAI/bge-reranker-v2-m3 --") for line in lines)
    assert any(line.startswith("Ollama: no. Ollama cannot rerank") for line in lines)


def test_sources_are_shown():
    assert "facts from: card: QwenLM/Qwen3-Embedding@" in run("qwen3-reranker")


@pytest.mark.parametrize("name", [None, "qwen3-reranker"])
def test_nothing_is_cut_in_a_pipe(name):
    command = [sys.executable, "-c", "from ragpair.cli import main; main()", "models", *filter(None, [name])]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True, timeout=50)
    assert "…" not in done.stdout
    assert "\x1b" not in done.stdout
    longest = max(done.stdout.splitlines(), key=len)
    assert len(longest.rstrip()) > 100
    if name is None:
        last = families()["uembed"].models
        row = next(line for line in done.stdout.splitlines() if line.startswith("uembed "))
        assert all(model.repo in row for model in last[:2])


def test_json_is_one_object_with_prompts_as_they_are():
    found = json.loads(run("Qwen3-Embedding-0.6B", "--json"))
    (family,) = found["families"]
    (model,) = family["models"]
    assert model["prompts"]["query"] == "Instruct: {instruction}\nQuery:{text}"
    assert model["dims"] == 1024
    assert model["engines"]["ollama"] == {"command": "ollama pull qwen3-embedding:0.6b"}
    assert family["evidence"] == "card"
    assert "refused" in json.loads(run("e5-base-v2", "--json"))["families"][0]["models"][0]["engines"]["sglang"]


def test_json_of_all():
    found = json.loads(run("--json"))
    assert [one["family"] for one in found["families"]] == list(families())
    assert all(
        set(model["engines"]) == {"vllm", "sglang", "ollama"} for one in found["families"] for model in one["models"]
    )


def test_what_is_not_there_is_said_with_what_is_near(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ragpair", "models", "qwen3-reranker-06b"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    shown = capsys.readouterr()
    assert end.value.code == 1
    assert shown.out == ""
    assert "'qwen3-reranker-06b'" in shown.err
    assert "Qwen/Qwen3-Reranker-0.6B" in " ".join(shown.err.split())
