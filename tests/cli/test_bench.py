"""`ragpair bench`: what it sends, what it counts, and what it cannot do."""

import sys
from itertools import islice
from pathlib import Path

import orjson
import pytest

from ragpair import bench
from ragpair.testing import FakeServer, Fault

from .conftest import Command


def test_as_many_requests_of_that_size_as_were_asked_for(ragpair: Command) -> None:
    with FakeServer("vllm") as server:
        ran = ragpair("bench", server.url, "--requests", 10, "--batch-size", 4, "--concurrency", 2, "--json")
        sizes = [len(request.body["input"]) for request in server.work if len(request.body["input"]) == 4]
        assert len(sizes) == 10 + 2  # a warm-up for each connection
        assert len(set(server.texts)) == len(server.texts)
    (run,) = ran.json["runs"]
    assert (run["requests"], run["failed"], run["batch_size"], run["concurrency"]) == (10, 0, 4, 2)
    times = run["latency_seconds"]
    assert 0 < times["p50"] <= times["p90"] <= times["p99"]
    assert run["texts_per_second"] == pytest.approx(4 * run["requests_per_second"])


@pytest.mark.parametrize("task", ["embed", "answers"])
def test_every_engine(ragpair: Command, engine: str, task) -> None:
    with FakeServer(engine, task=task) as server:
        ran = ragpair(
            "bench", server.url, "--requests", 3, "--batch-size", 2, "--concurrency", 2, "--words", 4, "--json"
        )
        documents = [request.body for request in server.work]
    assert (ran.code, ran.json["task"]) == (0, "embed" if task == "embed" else "rerank")
    assert len(documents) >= 5


def test_a_text_that_does_not_fit_is_an_error(ragpair: Command) -> None:
    with FakeServer("sglang", max_tokens=64) as server:
        ran = ragpair("bench", server.url, "--words", 100, "--requests", 2)
    assert ran.code == 1
    assert "longer than the model's context length" in ran.words


@pytest.mark.parametrize("engine", ["vllm", "ollama"])
def test_texts_that_the_server_cut_are_told(ragpair: Command, engine) -> None:
    said = "Texts over 512 tokens were cut by the server."
    with FakeServer(engine) as server:
        command = ["bench", server.url, "--task", "embed", "--requests", 2, "--batch-size", 1]
        long = ragpair(*command, "--words", 2000)
        short = ragpair(*command, "--words", 40)
        as_json = ragpair(*command, "--words", 2000, "--json")
    assert (long.code, short.code) == (0, 0)
    assert said in long.words
    assert "cut" not in short.words
    assert as_json.json["runs"][0]["texts_cut_at_tokens"] == 512


def test_a_text_that_is_long_and_fits_is_counted(ragpair: Command) -> None:
    with FakeServer("vllm") as server:
        ran = ragpair("bench", server.url, "--task", "embed", "--requests", 2, "--batch-size", 1, "--words", 400)
    assert (ran.code, "cut" in ran.words) == (0, False)


def test_so_many_in_flight(ragpair: Command, together) -> None:
    with FakeServer("vllm") as server:
        together(server, 3, after=3)
        ragpair("bench", server.url, "--task", "embed", "--requests", 12, "--concurrency", 3, "--batch-size", 1)
        assert server.in_flight_peak == 3


def test_a_sweep(ragpair: Command) -> None:
    with FakeServer("vllm", task="answers") as server:
        command = ["bench", server.url, "--requests", 2, "--batch-size", "1,3", "--concurrency", "1,2", "--words", 8]
        rows = ragpair(*command, "--json").json
        shown = ragpair(*command)
    assert rows["task"] == "rerank"
    assert [(run["batch_size"], run["concurrency"]) for run in rows["runs"]] == [(1, 1), (1, 2), (3, 1), (3, 2)]
    assert "documents/s" in shown.out
    assert "█" in shown.out
    assert "…" not in shown.out


def test_own_texts(ragpair: Command) -> None:
    texts = [f"text {n}" for n in range(9)]
    Path("in.jsonl").write_bytes(b"\n".join(orjson.dumps({"body": text}) for text in texts))
    with FakeServer("vllm") as server:
        command = ["bench", server.url, "--task", "embed", "--jsonl", "in.jsonl", "--field", "body", "--requests", 4]
        assert ragpair(*command, "--batch-size", 8).code == 0
        assert set(server.texts) == set(texts)
        assert ragpair(*command, "--batch-size", 16).code == 0  # they go round


def test_what_a_busy_server_refuses_is_counted(ragpair: Command) -> None:
    with FakeServer("vllm") as server:
        server.fail(Fault.edit(lambda reply: None, times=2), Fault(503, times=2))
        ran = ragpair("bench", server.url, "--task", "embed", "--requests", 5, "--concurrency", 1, "--json")
    assert ran.code == 1
    (run,) = ran.json["runs"]
    assert (run["requests"], run["failed"]) == (3, 2)


def test_a_server_that_is_not_there(ragpair: Command) -> None:
    assert ragpair("bench", "http://127.0.0.1:9", "--task", "embed").code == 3


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--concurrency", "many"], 2, "'many' is no number"),
        (["--batch-size", "8,0"], 2, "'8,0' is no number"),
        (["--words", "9..3"], 1, "'9..3' is no length"),
        (["--words", "x"], 1, "'x' is no length"),
    ],
)
def test_what_is_no_workload(ragpair: Command, arguments, code, said) -> None:
    with FakeServer("vllm") as server:
        ran = ragpair("bench", server.url, "--task", "embed", *arguments)
    assert (ran.code, said in ran.words.replace("│ ", "")) == (code, True)


def test_a_plot(ragpair: Command) -> None:
    pytest.importorskip("matplotlib")
    with FakeServer("vllm") as server:
        command = [
            "bench",
            server.url,
            "--requests",
            2,
            "--batch-size",
            "1,2",
            "--concurrency",
            "1,2",
            "--plot",
            "p.png",
        ]
        assert ragpair(*command).code == 0
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_is_said_before_anything_is_measured(ragpair: Command, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with FakeServer("vllm") as server:
        ran = ragpair("bench", server.url, "--plot", "p.png")
        assert server.requests == []
    assert (ran.code, 'pip install "ragpair[plot]"' in ran.words) == (1, True)


def test_lengths() -> None:
    assert list(islice(bench.lengths("7", 0), 3)) == [7, 7, 7]
    uniform = list(islice(bench.lengths("3..5", 0), 200))
    assert set(uniform) == {3, 4, 5}
    skewed = sorted(islice(bench.lengths("lognormal:100", 0), 999))
    assert 90 < skewed[499] < 110
    assert skewed[-1] > 300
    assert [len(text.split()) for text in islice(bench.synthetic("4", 1), 3)] == [4, 4, 4]
    assert list(islice(bench.synthetic("9", 1), 2)) != list(islice(bench.synthetic("9", 2), 2))


def test_percentiles() -> None:
    run = bench.Run(1, 2, tuple(n / 100 for n in range(1, 101)), 0, 10.0)
    assert (run.requests_per_second, run.texts_per_second) == (10.0, 20.0)
    assert run.percentile(50) == pytest.approx(0.505)
    assert run.percentile(99) == pytest.approx(0.9901)
    assert run.mean == pytest.approx(0.505)
