"""What docs/testing.md shows, runs; and it leaves nothing out."""

import inspect
import re
from pathlib import Path

from ragpair.testing import Fault, edits

DOCS = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")


def test_python_blocks(waits):
    known: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    for block in blocks:
        exec(compile(block, "testing.md", "exec"), known)
    with known["FakeServer"]("ollama", model="qwen3-embedding:0.6b") as server:
        known["test_that_a_broken_reply_is_no_answer"](server)
    assert len(blocks) >= 7


def test_every_fault_and_every_edit_is_listed():
    faults = {f"`Fault.{name}(" for name, _ in inspect.getmembers(Fault, inspect.ismethod)}
    changes = {
        f"`edits.{name}`"
        for name, value in vars(edits).items()
        if inspect.isfunction(value) and not name.startswith("_") and value.__module__ == edits.__name__
    }
    assert len(faults) > 10
    assert len(changes) > 8
    assert [name for name in sorted(faults | changes) if f"| {name}" not in DOCS] == []
