"""`ragpair rerank`: rows of queries and documents to rankings, and one query over a file."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from ragpair.testing import FakeServer, Fault

from .conftest import Command

ROWS = [{"id": n, "query": f"parcel {n}", "documents": ["bananas", f"here is parcel {n}", "parcel"]} for n in range(8)]


@pytest.fixture
def server():
    with FakeServer("vllm", task="answers") as server:
        yield server


@pytest.fixture(autouse=True)
def at_once(waits):
    """Retries do not wait."""


def write(rows: list[object]) -> None:
    Path("in.jsonl").write_bytes(
        b"\n".join(row.encode() if isinstance(row, str) else orjson.dumps(row) for row in rows)
    )


def lines_of(name: str) -> list[dict]:
    return [orjson.loads(line) for line in Path(name).read_bytes().splitlines()]


def test_rows_to_rankings(ragpair: Command, server) -> None:
    write(ROWS)
    ran = ragpair("rerank", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url, "--json")
    assert ran.json == {"out": "out.jsonl", "rows": 8, "skipped": 0, "resumed_at": 0}
    rows = lines_of("out.jsonl")
    assert [(row["id"], row["index"], row["query"]) for row in rows] == [(n, n, f"parcel {n}") for n in range(8)]
    assert [[one["index"] for one in row["ranking"]] for row in rows] == [[1, 2, 0]] * 8
    assert {row["score_kind"] for row in rows} == {"probability"}
    assert all(0 < one["score"] < 1 for row in rows for one in row["ranking"])
    assert "documents" not in rows[0]


def test_one_query_over_lines(ragpair: Command, server) -> None:
    ran = ragpair(
        "rerank", "--query", "my parcel", "--top-n", 1, "--base-url", server.url, stdin=b"bananas\nmy parcel\n"
    )
    (row,) = ran.rows
    assert (row["query"], row["ranking"][0]["index"], len(row["ranking"])) == ("my parcel", 1, 1)


def test_one_query_over_jsonl(ragpair: Command, server) -> None:
    write([{"body": "bananas"}, {"body": "my parcel"}])
    ran = ragpair("rerank", "in.jsonl", "--query", "my parcel", "--field", "body", "--base-url", server.url)
    assert ran.rows[0]["ranking"][0]["index"] == 1


def test_its_own_address_and_key(ragpair: Command, monkeypatch) -> None:
    with FakeServer("vllm", task="answers", api_key="sk-hunter2") as server:
        monkeypatch.setenv("RAGPAIR_API_KEY", "sk-of-the-embedder")
        monkeypatch.setenv("RAGPAIR_RERANK_BASE_URL", server.url)
        monkeypatch.setenv("RAGPAIR_RERANK_API_KEY", "sk-hunter2")
        assert ragpair("rerank", "--query", "q", stdin=b"d\n").code == 0


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{oops", "line 2 is no JSON"),
        ({"query": "q"}, "line 2 holds no list in 'documents'"),
        ({"documents": ["a"]}, "line 2 holds no text in 'query'"),
        ({"query": "q", "documents": "a"}, "line 2 holds no list in 'documents'"),
        ({"query": "q", "documents": ["a"], "index": 7}, "line 2 has a field 'index' of its own"),
        ({"query": "q", "documents": ["a", None]}, "line 2: document 1 is None"),
        ({"query": "q", "documents": ["a", "word " * 600]}, "line 2: the query with document 1 has"),
    ],
)
def test_bad_rows(ragpair: Command, server, bad, said) -> None:
    write([ROWS[0], bad, ROWS[1]])
    ran = ragpair("rerank", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url)
    assert ran.code == 1
    assert said in ran.words
    ran = ragpair("rerank", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url, "--on-error", "skip")
    assert ran.code == 0
    assert [row["index"] for row in lines_of("out.jsonl")] == [0, 2]
    assert said in lines_of("out.jsonl.errors.jsonl")[0]["error"]


def test_a_broken_run_goes_on(ragpair: Command, server) -> None:
    write(ROWS)
    command = ["rerank", "in.jsonl", "-o", "out.jsonl", "--concurrency", 1, "--base-url", server.url]
    server.fail(Fault.edit(lambda reply: None, times=2 + 4), Fault.drop(times=None))  # two probes and four rows
    assert ragpair(*command).code == 3
    server.clear()
    ran = ragpair(*command, "--json")
    assert ran.json == {"out": "out.jsonl", "rows": 8, "skipped": 0, "resumed_at": 4}
    assert [row["index"] for row in lines_of("out.jsonl")] == list(range(8))
    assert not any("parcel 3" in str(request.body) for request in server.work)


def test_other_settings_are_refused(ragpair: Command, server) -> None:
    write(ROWS)
    command = ["rerank", "in.jsonl", "-o", "out.jsonl", "--concurrency", 1, "--base-url", server.url]
    server.fail(Fault.edit(lambda reply: None, times=2 + 4), Fault.drop(times=None))
    assert ragpair(*command).code == 3
    server.clear()
    ran = ragpair(*command, "--instruction", "Find bananas")
    assert (ran.code, "begun with instruction None" in ran.words) == (1, True)


def test_an_embedder_is_refused(ragpair: Command) -> None:
    with FakeServer("vllm", task="embed") as server:
        ran = ragpair("rerank", "--query", "q", "--base-url", server.url, stdin=b"d\n")
    assert ran.code == 1
    assert "is an embedding model" in ran.words


def test_no_documents_have_an_empty_ranking(ragpair: Command, server) -> None:
    write([{"query": "q", "documents": []}, ROWS[0]])
    ragpair("rerank", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url)
    assert [len(row["ranking"]) for row in lines_of("out.jsonl")] == [0, 3]
    assert {row["score_kind"] for row in lines_of("out.jsonl")} == {"probability"}


def test_a_bad_line_costs_no_ranking_before_it(ragpair: Command, server) -> None:
    write([*ROWS[:6], "{bad", ROWS[6]])
    ran = ragpair("rerank", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url)
    assert (ran.code, "6 lines are done" in ran.words) == (1, True)


def test_ctrl_c_waits_for_nobody(ragpair: Command, server) -> None:
    write(ROWS)
    ragpair("rerank", "in.jsonl", "-o", "first.jsonl", "--base-url", server.url)
    probes = len(server.work) - len(ROWS)
    server.clear()
    server.fail(Fault.edit(lambda reply: None, times=probes), Fault.delay(60, times=None))
    command = [sys.executable, "-m", "ragpair.cli", "rerank", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as run:
        while len(server.work) < probes + 2:
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=20)
    assert run.returncode == 130
