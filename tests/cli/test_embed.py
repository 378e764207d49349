"""`ragpair embed`: what goes in, what comes out, and how a broken run goes on."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import orjson
import pytest

from ragpair import Embedder
from ragpair.testing import FakeServer, Fault, edits

from .conftest import Command

TEXTS = [f"parcel number {n}" for n in range(20)]


@pytest.fixture
def server():
    with FakeServer("vllm") as server:
        yield server


@pytest.fixture(autouse=True)
def at_once(waits):
    """Retries do not wait."""


def write(name: str, lines: list[object]) -> None:
    data = b"".join((one.encode() if isinstance(one, str) else orjson.dumps(one)) + b"\n" for one in lines)
    Path(name).write_bytes(data)


def vectors_of(server: FakeServer, texts: list[str]) -> np.ndarray:
    with Embedder(server.url) as embedder:
        return embedder.embed_documents(texts)


def lines_of(name: str) -> list[dict]:
    return [orjson.loads(line) for line in Path(name).read_bytes().splitlines()]


# --- formats ---------------------------------------------------------------------------------------------------------


def test_lines_to_npy(ragpair: Command, server) -> None:
    write("texts.txt", TEXTS)
    ran = ragpair("embed", "texts.txt", "-o", "out.npy", "--base-url", server.url, "--json")
    assert ran.json == {"out": "out.npy", "rows": 20, "skipped": 0, "resumed_at": 0}
    array = np.load("out.npy", mmap_mode="r")
    assert (array.dtype, array.shape) == (np.float32, (20, 64))
    np.testing.assert_array_equal(array, vectors_of(server, TEXTS))
    assert sorted(path.name for path in Path().iterdir()) == ["out.npy", "texts.txt"]


def test_jsonl_keeps_the_other_fields(ragpair: Command, server) -> None:
    write("in.jsonl", [{"id": n, "body": text, "tags": ["a"]} for n, text in enumerate(TEXTS)])
    assert ragpair("embed", "in.jsonl", "-o", "out.jsonl", "--field", "body", "--base-url", server.url).code == 0
    rows = lines_of("out.jsonl")
    assert [(row["id"], row["index"], row["tags"]) for row in rows] == [(n, n, ["a"]) for n in range(20)]
    assert "body" not in rows[0]
    np.testing.assert_array_equal(np.float32([row["embedding"] for row in rows]), vectors_of(server, TEXTS))


def test_standard_input_to_standard_output(ragpair: Command, server) -> None:
    ran = ragpair("embed", "--base-url", server.url, stdin="一\nzwei\r\n".encode())
    assert [row["index"] for row in ran.rows] == [0, 1]
    assert server.texts == ["一", "zwei"]
    ran = ragpair("embed", "-", "--base-url", server.url, stdin=b'{"text": "one"}\n\n{"text": "two"}')
    assert [row["index"] for row in ran.rows] == [0, 1]
    assert ran.err == ""


def test_a_text_file_may_begin_with_a_brace(ragpair: Command, server) -> None:
    write("code.txt", ["{", "}"])
    assert len(ragpair("embed", "code.txt", "--base-url", server.url).rows) == 2


def test_a_mark_of_byte_order_is_no_text(ragpair: Command, server) -> None:
    ragpair("embed", "--base-url", server.url, stdin=b"\xef\xbb\xbfone\n")
    assert server.texts == ["one"]


def test_queries_get_their_prompt(ragpair: Command, server) -> None:
    ragpair("embed", "--base-url", server.url, "--side", "query", "--instruction", "Find parcels", stdin=b"where\n")
    assert server.texts == ["Instruct: Find parcels\nQuery:where"]


def test_the_address_and_the_key_may_stand_in_the_environment(ragpair: Command, monkeypatch) -> None:
    with FakeServer("vllm", api_key="sk-hunter2") as server:
        monkeypatch.setenv("RAGPAIR_BASE_URL", server.url)
        monkeypatch.setenv("RAGPAIR_API_KEY", "sk-hunter2")
        assert len(ragpair("embed", stdin=b"one\n").rows) == 1


# --- bad rows --------------------------------------------------------------------------------------------------------

BAD = {
    "no JSON": ("{oops", "line 2 is no JSON"),
    "no object": (["a"], "line 2 is no JSON object"),
    "no such field": ({"txt": "a"}, "line 2 holds no field 'text', but 'txt'"),
    "no text": ({"text": 7}, "line 2 holds no text in 'text': 7"),
    "blank": ({"text": "  "}, "line 2 is blank"),
    "too long": ({"text": "word " * 600, "id": "x"}, "line 2: the text has more tokens than fit"),
}


@pytest.mark.parametrize(("bad", "said"), BAD.values(), ids=BAD)
def test_bad_rows_are_named_by_their_line(ragpair: Command, server, bad, said) -> None:
    write("in.jsonl", [{"text": "one"}, bad, {"text": "two"}])
    ran = ragpair("embed", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url)
    assert ran.code == 1
    assert said in ran.words
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize(("bad", "said"), BAD.values(), ids=BAD)
def test_bad_rows_can_be_left_out(ragpair: Command, server, bad, said) -> None:
    write("in.jsonl", [{"text": "one"}, bad, {"text": "two"}])
    ran = ragpair("embed", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url, "--on-error", "skip", "--json")
    assert ran.json == {"out": "out.jsonl", "rows": 2, "skipped": 1, "resumed_at": 0}
    assert [row["index"] for row in lines_of("out.jsonl")] == [0, 2]
    (noted,) = lines_of("out.jsonl.errors.jsonl")
    assert noted["line"] == 2
    assert said in noted["error"]
    assert noted["id"] == (bad.get("id") if isinstance(bad, dict) else None)


def test_several_long_texts_cost_no_other_text(ragpair: Command, server) -> None:
    texts = [text + " word" * (600 if n % 7 == 3 else 0) for n, text in enumerate(TEXTS)]
    write("in.txt", texts)
    arguments = ["in.txt", "-o", "out.jsonl", "--on-error", "skip", "--batch-size", 4, "--concurrency", 2]
    ran = ragpair("embed", *arguments, "--base-url", server.url)
    assert ran.code == 0
    assert [row["index"] for row in lines_of("out.jsonl")] == [n for n in range(20) if n % 7 != 3]
    assert [row["line"] for row in lines_of("out.jsonl.errors.jsonl")] == [4, 11, 18]


def test_long_texts_can_be_cut(ragpair: Command, server) -> None:
    ran = ragpair("embed", "--too-long", "truncate", "--base-url", server.url, stdin=b"word " * 600)
    assert len(ran.rows) == 1


def test_bytes_that_are_no_text(ragpair: Command, server) -> None:
    ran = ragpair("embed", "--base-url", server.url, stdin=b"fine\n\xff\xfe\n")
    assert (ran.code, "line 2 is no UTF-8" in ran.words) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such.txt"], "no-such.txt cannot be read"),
        (["in.txt", "-o", "out.parquet"], ".jsonl or a .npy file"),
        (["in.txt", "-o", "out.npy", "--on-error", "skip"], "only the position"),
        (["in.txt", "-o", "in.jsonl"], "in.jsonl is there already"),
        (["in.txt", "-o", "no/such/folder.npy"], "cannot be written"),
        (["empty.txt", "-o", "out.npy"], "empty.txt holds no rows"),
        (["in.txt", "--dimensions", 7], "cannot be cut to 7"),
    ],
)
def test_what_cannot_be_is_said(ragpair: Command, server, arguments, said) -> None:
    write("in.txt", TEXTS)
    write("in.jsonl", [])
    write("empty.txt", [])
    ran = ragpair("embed", *arguments, "--base-url", server.url)
    assert ran.code == 1
    assert said in ran.words
    assert not list(Path().glob("out.*"))


def test_no_server(ragpair: Command) -> None:
    ran = ragpair("embed", "--base-url", "http://127.0.0.1:9", stdin=b"one\n")
    assert ran.code == 3
    assert "EndpointUnreachable: http://127.0.0.1:9/v1/models gave no answer" in ran.words


# --- runs that break -------------------------------------------------------------------------------------------------


def broken(ragpair: Command, server: FakeServer, out: str, *arguments: object, after: int = 3) -> tuple:
    """A run that embeds `after` batches of four texts, and then the server is gone."""
    write("in.txt", TEXTS)
    command = (
        "embed",
        "in.txt",
        "-o",
        out,
        "--batch-size",
        4,
        "--concurrency",
        1,
        "--base-url",
        server.url,
        *arguments,
    )
    server.fail(Fault.edit(lambda reply: None, times=after), Fault.drop(times=None))
    ran = ragpair(*command)
    assert ran.code == 3
    assert f"{4 * after} lines are done" in ran.words
    assert not Path(out).exists()
    server.clear()
    return command


@pytest.mark.parametrize("out", ["out.npy", "out.jsonl"])
def test_a_broken_run_goes_on_without_repeating_work(ragpair: Command, server, out) -> None:
    command = broken(ragpair, server, out)
    with Path(f"{out}.partial").open("ab") as file:
        file.write(b"half a row that the state knows nothing of")
    ran = ragpair(*command, "--json")
    assert ran.json == {"out": out, "rows": 20, "skipped": 0, "resumed_at": 12}
    assert server.texts == TEXTS[12:]
    found = np.load(out) if out.endswith("npy") else np.float32([row["embedding"] for row in lines_of(out)])
    np.testing.assert_array_equal(found, vectors_of(server, TEXTS))
    assert sorted(path.name for path in Path().iterdir()) == sorted(["in.txt", out])


def test_what_failed_before_the_break_is_still_noted(ragpair: Command, server) -> None:
    lines = ['{"text": "a"}', "{oops", *(orjson.dumps({"text": text}).decode() for text in TEXTS), "{again"]
    write("in.jsonl", lines)
    command = ["embed", "in.jsonl", "-o", "out.jsonl", "--batch-size", 4, "--concurrency", 1, "--on-error", "skip"]
    server.fail(Fault.edit(lambda reply: None, times=2), Fault.drop(times=None))
    assert ragpair(*command, "--base-url", server.url).code == 3
    server.clear()
    ran = ragpair(*command, "--base-url", server.url, "--json")
    assert ran.json == {"out": "out.jsonl", "rows": 21, "skipped": 2, "resumed_at": 9}
    assert [row["line"] for row in lines_of("out.jsonl.errors.jsonl")] == [2, 23]
    assert [row["index"] for row in lines_of("out.jsonl")] == [0, *range(2, 22)]


def test_notes_of_a_run_before_are_gone(ragpair: Command, server) -> None:
    Path("out.jsonl.errors.jsonl").write_text("old\n")
    write("in.txt", TEXTS)
    assert ragpair("embed", "in.txt", "-o", "out.jsonl", "--base-url", server.url).code == 0
    assert not Path("out.jsonl.errors.jsonl").exists()


def test_another_input_is_refused(ragpair: Command, server) -> None:
    command = broken(ragpair, server, "out.npy")
    write("in.txt", ["something else", *TEXTS[1:]])
    ran = ragpair(*command)
    assert ran.code == 1
    assert "the first 12 lines of in.txt are not those" in ran.words
    assert server.texts == []
    write("in.txt", TEXTS[:5])
    assert "are not those" in ragpair(*command).words


def test_an_input_that_has_grown_is_gone_on_with(ragpair: Command, server) -> None:
    command = broken(ragpair, server, "out.npy")
    write("in.txt", [*TEXTS, "one more"])
    assert ragpair(*command).code == 0
    assert len(np.load("out.npy")) == 21


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--side", "query"], "prompt '{text}', and now it is 'Instruct: "),
        (["--dimensions", 32], "dimensions None, and now it is 32"),
        (["--too-long", "truncate"], "too_long 'error', and now it is 'truncate'"),
    ],
)
def test_other_settings_are_refused(ragpair: Command, server, arguments, said) -> None:
    command = broken(ragpair, server, "out.npy")
    ran = ragpair(*command, *arguments)
    assert ran.code == 1
    assert f"out.npy.partial was begun with {said}" in ran.words


def test_another_model_is_refused(ragpair: Command, server) -> None:
    command = broken(ragpair, server, "out.npy")
    with FakeServer("vllm", model="BAAI/bge-m3") as other:
        ran = ragpair(*command, "--base-url", other.url)
    assert "begun with model 'Qwen/Qwen3-Embedding-0.6B', and now it is 'BAAI/bge-m3'" in ran.words


def test_another_address_and_other_batches_are_fine(ragpair: Command, server) -> None:
    command = broken(ragpair, server, "out.npy")
    with FakeServer("vllm") as replica:
        assert ragpair(*command, "--base-url", replica.url, "--batch-size", 7).code == 0
    assert len(np.load("out.npy")) == 20


def test_a_state_that_cannot_be_read_is_a_message(ragpair: Command, server) -> None:
    command = broken(ragpair, server, "out.npy")
    Path("out.npy.state.json").write_text("{")
    ran = ragpair(*command)
    assert (ran.code, "remove it and out.npy.partial to begin anew" in ran.words) == (1, True)


def test_ctrl_c_keeps_what_was_done(ragpair: Command, server) -> None:
    write("in.txt", TEXTS)
    command = ["embed", "in.txt", "-o", "out.npy", "--batch-size", 4, "--concurrency", 1, "--base-url", server.url]
    server.fail(Fault.delay(60, holding=TEXTS[8], times=None))
    with subprocess.Popen(
        [sys.executable, "-m", "ragpair.cli", *map(str, command)], stderr=subprocess.PIPE, text=True
    ) as run:
        while not any(TEXTS[8] in str(request.body) for request in server.work):
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=20)
    done = orjson.loads(Path("out.npy.state.json").read_bytes())["rows"]
    assert (run.returncode, done in (4, 8), f"{done} lines are done" in err) == (130, True, True)
    server.clear()
    assert ragpair(*command, "--json").json["resumed_at"] == done
    np.testing.assert_array_equal(np.load("out.npy"), vectors_of(server, TEXTS))


def test_the_server_does_not_wait_for_rows_to_be_written(ragpair: Command, server) -> None:
    """The first of twenty rows is not answered before the fourth has arrived, with two requests at a time."""
    arrived, met = threading.Event(), []
    server.fail(
        Fault(holding=TEXTS[0], change=lambda _: met.append(arrived.wait(10))),
        Fault(holding=TEXTS[3], change=lambda _: arrived.set()),
    )
    write("in.txt", TEXTS)
    arguments = ["in.txt", "-o", "out.npy", "--batch-size", 1, "--concurrency", 2, "--base-url", server.url]
    assert ragpair("embed", *arguments).code == 0
    assert met == [True]
    np.testing.assert_array_equal(np.load("out.npy"), vectors_of(server, TEXTS))


def test_a_state_without_its_file_is_forgotten(ragpair: Command, server) -> None:
    """A run that dies at once would leave it for the next one, which would believe it."""
    command = broken(ragpair, server, "out.npy")
    Path("out.npy.partial").unlink()
    server.fail(Fault.drop(times=None))
    assert ragpair(*command).code == 3
    assert not Path("out.npy.state.json").exists()


def test_a_file_that_is_shorter_than_its_state_is_refused(ragpair: Command, server) -> None:
    command = broken(ragpair, server, "out.npy")
    Path("out.npy.partial").write_bytes(b"")
    ran = ragpair(*command)
    assert (ran.code, "out.npy.partial is shorter than out.npy.state.json says" in ran.words) == (1, True)


def test_vectors_of_another_width_are_refused(ragpair: Command, server) -> None:
    command = broken(ragpair, server, "out.npy")
    with FakeServer("vllm", dims=32) as other:
        ran = ragpair(*command, "--base-url", other.url)
    assert (ran.code, "have 32 numbers now, and had 64" in ran.words) == (1, True)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(400, {"error": {"message": "I will not"}}, holding=TEXTS[14], times=None),
        Fault.edit(edits.nan, holding=TEXTS[14], times=None),
    ],
    ids=["refused", "NaN"],
)
def test_a_text_that_the_server_cannot_do_is_named_by_its_line_and_can_be_left_out(
    ragpair: Command, server, fault
) -> None:
    write("in.txt", TEXTS)
    command = ["embed", "in.txt", "-o", "out.jsonl", "--batch-size", 1, "--base-url", server.url]
    server.fail(fault)
    for _ in range(2):  # also when it is the first of those that are left
        assert "line 15: " in ragpair(*command).words
    assert ragpair(*command, "--on-error", "skip").code == 0
    assert [row["index"] for row in lines_of("out.jsonl")] == [n for n in range(20) if n != 14]
    assert [row["line"] for row in lines_of("out.jsonl.errors.jsonl")] == [15]


def test_where_all_rows_fail_the_rows_are_not_to_blame(ragpair: Command, server) -> None:
    write("in.jsonl", [{"body": f"text {n}"} for n in range(1500)])
    ran = ragpair("embed", "in.jsonl", "-o", "out.jsonl", "--base-url", server.url, "--on-error", "skip")
    assert ran.code == 1
    assert "The first 1,000 rows that were tried all failed" in ran.words
    assert "no field 'text', but 'body'" in ran.words


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("in.csv", "id,text\n1,a\n"),
        ("in.json", '[{"text": "a"}]'),
        ("in", '[{"text": "a"},\n{"text": "b"}]'),
        ("in", "[\n"),
    ],
)
def test_tables_and_arrays_are_no_rows(ragpair: Command, server, name, text) -> None:
    Path(name).write_text(text)
    ran = ragpair("embed", name, "--base-url", server.url)
    assert (ran.code, "Make it JSONL" in ran.words, server.texts) == (1, True, [])


def test_a_field_that_the_result_would_overwrite_is_refused(ragpair: Command, server) -> None:
    write("in.jsonl", [{"text": "a", "index": "sku-17"}])
    ran = ragpair("embed", "in.jsonl", "--base-url", server.url)
    assert (ran.code, "line 1 has a field 'index' of its own" in ran.words) == (1, True)
