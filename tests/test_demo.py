"""The demo: its numbers are right, its chains run in both frameworks, and its errors are messages."""

import json
import subprocess
import sys

import pytest

from ragpair import cli
from ragpair.demo.chains import Setup, build
from ragpair.demo.helpdesk import hit_at_1, load, ndcg_at_10
from ragpair.testing import FakeServer

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")


def test_numbers() -> None:
    rankings = [["a", "b", "c"], ["b", "a", "c"], ["b", "c", "d"]]
    assert hit_at_1(rankings, ["a", "a", "a"]) == pytest.approx(1 / 3)
    assert ndcg_at_10(rankings, ["a", "a", "a"]) == pytest.approx((1 + 0.6309297535714575 + 0) / 3)
    late = [[str(n) for n in range(20)]]
    assert ndcg_at_10(late, ["10"]) == 0


@pytest.mark.parametrize("framework", ["langchain", "llamaindex"])
def test_the_chain_recalls_and_reranks_on_servers(framework) -> None:
    entries, _ = load("en")
    with (
        FakeServer("vllm", model="Qwen/Qwen3-Embedding-0.6B", task="embed") as embedder,
        FakeServer("vllm", model="Qwen/Qwen3-Reranker-0.6B", task="answers") as reranker,
    ):
        ask = build(framework, Setup({"base_url": embedder.url}, {"base_url": reranker.url}), entries)
        found = ask(entries[7].question)
        assert entries[7].id in found.recalled
        assert sorted(found.ranked) == sorted(found.recalled)
        assert len(found.recalled) == 10
        assert found.score is not None
        assert embedder.texts[-1].startswith("Instruct: ")


def test_both_frameworks_find_the_same() -> None:
    entries, questions = load("zh")
    with FakeServer("ollama", task="embed") as server:
        setup = Setup({"base_url": server.url})
        one, other = (build(framework, setup, entries) for framework in ("langchain", "llamaindex"))
        for question in questions[:5]:
            assert one(question.text).recalled == other(question.text).recalled


@pytest.mark.parametrize(
    ("options", "said", "code"),
    [
        (["--base-url", "http://127.0.0.1:9"], "is this its address and port", 3),
        (["--base-url", "http://user:pw@x"], "user name or password", 1),
        (["--model", "nope"], "no model 'nope' in the embedded engine", 1),
    ],
)
def test_errors_are_messages(options, said, code, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["ragpair", "demo", "--language", "en", *options])
    monkeypatch.setattr("ragpair.drivers.threads.time.sleep", lambda _: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == code
    shown = capsys.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err
    assert "pw" not in shown.out + shown.err


def test_a_qdrant_that_is_not_there_is_a_message() -> None:
    """In a process of its own, since qdrant-client warns from a thread."""
    command = [
        sys.executable,
        "-c",
        "from ragpair.cli import main; main()",
        "demo",
        "--qdrant-url",
        "http://127.0.0.1:9",
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert run.returncode == 1
    assert "Qdrant at http://127.0.0.1:9 could not be used" in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr


def test_json_is_all_that_stands_on_standard_output(monkeypatch, capsys) -> None:
    with FakeServer("vllm", task="embed") as embedder, FakeServer("vllm", task="answers") as reranker:
        servers = ["--base-url", embedder.url, "--rerank-base-url", reranker.url]
        monkeypatch.setattr("sys.argv", ["ragpair", "demo", "--language", "en", "--json", *servers])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert not end.value.code
    numbers = json.loads(capsys.readouterr().out)["en"]
    assert 0 < numbers["recall"]["hit@1"] <= numbers["recall"]["NDCG@10"] <= 1
    assert set(numbers) == {"recall", "after reranking"}
