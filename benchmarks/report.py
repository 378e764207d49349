"""What a benchmark has to say: tables in Markdown, and how its targets were met."""

import argparse
import json
import math
import os
import platform
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """One promise, and what was measured of it."""

    promise: str
    measured: str
    verdict: str


def at_most(promise: str, value: float, limit: float, unit: str = "x") -> Target:
    """A target that is met by small values."""
    return _target(promise, value, limit, unit, missed_by=value - limit)


def at_least(promise: str, value: float, limit: float, unit: str = "x") -> Target:
    """A target that is met by large values."""
    return _target(promise, value, limit, unit, missed_by=limit - value)


def _target(promise: str, value: float, limit: float, unit: str, missed_by: float) -> Target:
    if math.isnan(value):
        return Target(promise, "-", "not measured")
    digits = 2 if unit == "x" else 0
    verdict = "met" if missed_by <= 0 else f"missed by {missed_by:.{digits + 1}f}{unit}"
    return Target(promise, f"{value:.{digits}f}{unit}", verdict)


@dataclass(frozen=True)
class Section:
    """The result of one benchmark.

    Attributes:
        markdown: Its tables, and how they were made.
        targets: What the project promises of them.
    """

    markdown: str
    targets: Sequence[Target] = ()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in a terminal too."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def target_table(rows: Iterable[Sequence[str]]) -> str:
    """The table of targets: section, promise, what was measured, verdict."""
    return table(("section", "target", "measured", "verdict"), rows)


def machine(*packages: str) -> str:
    """One line on where and with what a section was measured."""
    versions = [f"Python {platform.python_version()}"]
    for package in ("ragpair", "httpx", "numpy", *packages):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"no {package}")
    load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    return f"*{date.today()}; {_processor()}, {os.cpu_count()} cores{load}; {', '.join(versions)}*"


def _processor() -> str:
    """The processor's name where the system tells it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def script(parser: argparse.ArgumentParser, measure: Callable[..., Section]) -> None:
    """The main function of a benchmark: measure as the command line says, and print.

    With `--json` the section goes to that file in place of the terminal; `python -m benchmarks` collects it from there.
    """
    parser.add_argument("--json", type=Path, help="write the section to this file, for `python -m benchmarks`")
    options = vars(parser.parse_args())
    target_file = options.pop("json")
    warnings.simplefilter("ignore")
    section = measure(**options)
    if target_file:
        target_file.write_text(json.dumps(asdict(section)), encoding="utf-8")
        return
    name = (parser.prog or "").rpartition(".")[2]
    print(section.markdown)
    if section.targets:
        print(f"\n{target_table((name, t.promise, t.measured, t.verdict) for t in section.targets)}")
