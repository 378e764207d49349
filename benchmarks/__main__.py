"""All benchmarks, one after another, each in a process of its own; the tables go into docs/performance.md.

    python -m benchmarks                        # all of them, printed
    python -m benchmarks --write                # and written down
    python -m benchmarks --only memory --write  # this part measured anew

The document keeps its own words: what is between `<!-- begin NAME -->` and `<!-- end NAME -->` is replaced.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from .report import Section, Target, target_table

SECTIONS = ("overhead", "gpu", "latency", "wire", "vllm_cpu", "imports", "memory")
DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"
TARGETS = "targets"


def run(name: str) -> Section:
    """One benchmark; what goes wrong with it is what its section says."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "section.json"
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--json", str(result)])
        if done.returncode:
            return Section(f"Not measured: the benchmark ended with status {done.returncode}.")
        told = json.loads(result.read_text(encoding="utf-8"))
    return Section(told["markdown"], [Target(**target) for target in told["targets"]])


def between(document: str, name: str, new: str | None = None) -> str:
    """The part of the document with this name, or the document with another part in its place."""
    part = re.compile(f"(<!-- begin {name} -->\n)(.*?)(<!-- end {name} -->)", re.DOTALL)
    found = part.search(document)
    if found is None:
        raise SystemExit(f"{DOCUMENT.name} has no part {name!r} between its marks")
    if new is None:
        return found[2]
    return f"{document[: found.start(2)]}\n{new}\n\n{document[found.end(2) :]}"


def target_rows(document: str) -> list[list[str]]:
    """The rows of the table of targets as it stands in the document."""
    lines = [line for line in between(document, TARGETS).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def main() -> None:
    """Run, print, and write if asked to."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="All benchmarks.")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="NAME")
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{DOCUMENT.name}")
    options = parser.parse_args()
    for name in options.only:
        print(f"{name} ...", file=sys.stderr)
        section = run(name)
        rows = [[name, target.promise, target.measured, target.verdict] for target in section.targets]
        print(f"## {name}\n\n{section.markdown}\n\n{target_table(rows)}\n", flush=True)
        if options.write:  # after each, so that what was measured stays if the next one is interrupted
            document = DOCUMENT.read_text(encoding="utf-8")
            kept = [row for row in target_rows(document) if row[0] != name]
            ordered = sorted([*kept, *rows], key=lambda row: SECTIONS.index(row[0]))
            document = between(document, TARGETS, target_table(ordered))
            DOCUMENT.write_text(between(document, name, section.markdown), encoding="utf-8")


if __name__ == "__main__":
    main()
