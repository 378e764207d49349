"""What docs/cli.md shows of `launch` and `models`, runs: the commands of its blocks, with the output that it prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ragpair import cli

FILE = Path(__file__).parents[2] / "docs" / "cli.md"
if not FILE.exists():
    pytest.skip("the tests of a wheel have no docs beside them", allow_module_level=True)
DOCS = FILE.read_text(encoding="utf-8")
SHOWN = re.findall(r"```console\n\$ (ragpair (?:launch|models)\b.*)\n((?:.*\n)*?)```", DOCS)
PLAIN = re.findall(r"^(ragpair (?:launch|models)\b.*)$", DOCS, re.MULTILINE)


def run(command: str, monkeypatch, capsys) -> tuple[int, str]:
    """Exit code and output, stdout first, as a terminal of 100 columns has it."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.argv", shlex.split(command.partition(" > ")[0]))
    with pytest.raises(SystemExit) as end:
        cli.main()
    shown = capsys.readouterr()
    return int(end.value.code or 0), "".join(f"{line.rstrip()}\n" for line in (shown.out + shown.err).splitlines())


def test_there_are_examples():
    assert len(SHOWN) >= 4
    assert len(PLAIN) >= 10


@pytest.mark.parametrize(("command", "output"), SHOWN)
def test_output_is_what_the_document_shows(command, output, monkeypatch, capsys):
    assert run(command, monkeypatch, capsys)[1] == output


@pytest.mark.parametrize("command", PLAIN)
def test_commands_work(command, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, shown = run(command, monkeypatch, capsys)
    assert code == 0, shown


@pytest.mark.parametrize("name", ["launch", "models"])
def test_help_has_examples_that_work(name, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    shown = run(f"ragpair {name} --help", monkeypatch, capsys)[1]
    examples = re.findall(rf"^ *(ragpair {name}\b.*)$", shown, re.MULTILINE)
    assert len(examples) >= 3
    for command in examples:
        assert run(command, monkeypatch, capsys)[0] == 0, command
