"""What all commands say, and where: results to standard output, everything else to standard error."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ragpair.errors import EndpointOverloaded, EndpointUnreachable, RagpairError, RagpairWarning

if TYPE_CHECKING:
    from ragpair.cli.resume import Summary

FOUND, ABSENT = 1, 3
EXIT_CODES = (
    "Exit codes: 0 all is well; 1 something is wrong, and the output says what; 2 the command line is wrong; "
    "3 the server does not answer, or not yet."
)

# Messages of the library name its arguments; on the command line these are options.
_ARGUMENT = re.compile(
    r"\b(model|family|engine|instruction|dimensions|api_key|too_long|scores|batch_size|max_concurrency|timeout|base_url)"
    r"=(?='?[\w.-]|[\s,.:;)]|$)"
)
_OPTIONS = {"max_concurrency": "concurrency"}
_PIPE_WIDTH = 160  # nobody sees the edge of a pipe, and nothing may be cut there


def results() -> Console:
    """Standard output, for people."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def asides() -> Console:
    """Standard error: progress, warnings, summaries."""
    return Console(stderr=True, highlight=False)


def write_json(value: Any) -> None:
    """One JSON value as a line on standard output, for scripts."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")


def progress() -> Progress:
    """A bar on standard error, which vanishes at the end and is not there at all where nobody looks."""
    console = asides()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def as_options(message: str) -> str:
    """A message of the library in the words of the command line: "pass model=" becomes "pass --model"."""

    def option(found: re.Match[str]) -> str:
        name = _OPTIONS.get(found[1], found[1]).replace("_", "-")
        valued = message[found.end() : found.end() + 1] not in ("", " ", ",", ".", ":", ";", ")", "\n")
        return f"--{name}{'=' if valued else ''}"

    message = message.replace("family=None", "--family none")
    return _ARGUMENT.sub(option, message)


def summarise(summary: Summary, *, as_json: bool) -> None:
    """What a run over a file left behind: for people on standard error, for scripts on standard output."""
    if as_json:
        if summary.out == "-":  # where the results are
            asides().print(orjson.dumps(asdict(summary)).decode(), markup=False, soft_wrap=True)
        else:
            write_json(asdict(summary))
        return
    if summary.out == "-" and not summary.skipped:
        return
    parts = [f"{summary.rows} rows"]
    if summary.resumed_at:
        parts.append(f"gone on with after {summary.resumed_at}")
    if summary.skipped:
        parts.append(f"{summary.skipped} left out" + ("" if summary.out == "-" else f": {summary.out}.errors.jsonl"))
    asides().print(f"{summary.out}: {', '.join(parts)}", markup=False, soft_wrap=True)


@contextmanager
def messages() -> Iterator[None]:
    """Errors and warnings of the library as messages on standard error; errors end the command."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **kwargs: Any) -> None:
        if issubclass(category, RagpairWarning):
            asides().print("[yellow]warning[/]: ", end="")
            asides().print(as_options(str(message)), markup=False, soft_wrap=True)
        else:
            before(message, category, *where, **kwargs)

    warnings.showwarning = show
    try:
        yield
    except RagpairError as exc:
        asides().print(f"[bold red]{type(exc).__name__}[/]: ", end="")
        asides().print(as_options(str(exc)), markup=False, soft_wrap=True)
        sys.exit(ABSENT if isinstance(exc, EndpointUnreachable | EndpointOverloaded) else FOUND)
    finally:
        warnings.showwarning = before
