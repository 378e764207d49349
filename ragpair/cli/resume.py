"""Rows to results in a file that grows, by runs that go on where the last one broke off.

Results grow in `OUT.partial`; after each chunk `OUT.state.json` says how far they reach, of which input (by the hash of
the lines that were read), by which settings. The same command goes on from there, and one with another input or other
settings is refused. When all is done, `OUT.partial` takes its place as `OUT` in one step: a file of that name is whole.

A .npy file begins with its shape, which is known at the end: its header is written last, into room that was left.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from ragpair.cli.rows import STDIO, Failed, Reader, Row, opened
from ragpair.errors import ConfigurationError, InvalidInput

_NPY_HEADER = 128  # bytes; numpy leaves room in it for any count


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run left behind."""

    out: str
    rows: int
    skipped: int
    resumed_at: int


@dataclass(slots=True)
class _State:
    """How far a run has come."""

    settings: Mapping[str, Any]
    lines: int = 0
    sha256: str = ""
    rows: int = 0
    skipped: int = 0
    size: int = 0
    errors_size: int = 0
    width: int = 0


@dataclass(slots=True)
class _Output:
    """The growing file, what is known of it, and the file of what failed."""

    path: Path
    state: _State
    file: BinaryIO
    errors: BinaryIO | None = None
    resumed_at: int = 0

    @property
    def is_npy(self) -> bool:
        return self.path.suffix == ".npy"

    def append(self, payloads: Iterable[bytes], failed: Sequence[Failed]) -> None:
        for payload in payloads:
            if self.is_npy:
                self.state.width = self.state.width or len(payload) // 4
            self.file.write(payload)
            self.state.rows += 1
        for one in failed:
            self.state.skipped += 1
            if self.path == STDIO:
                sys.stderr.write(f"skipped: {one.error}\n")
                continue
            if self.errors is None:
                self.errors = _beside(self.path, ".errors.jsonl").open("wb")
            self.errors.write(orjson.dumps(asdict(one)) + b"\n")

    def keep(self, lines: int, sha256: str) -> None:
        """What was appended is on the disk before the state says so."""
        if self.path == STDIO:
            self.file.flush()
            return
        for file in (self.file, self.errors):
            if file is not None:
                file.flush()
                os.fsync(file.fileno())
        self.state.lines, self.state.sha256, self.state.size = lines, sha256, self.file.tell()
        self.state.errors_size = self.errors.tell() if self.errors is not None else 0
        temporary = _beside(self.path, ".state.json.tmp")
        temporary.write_bytes(orjson.dumps(asdict(self.state)))
        temporary.replace(_beside(self.path, ".state.json"))

    def finish(self) -> None:
        """The partial file takes the place of the whole one."""
        if self.errors is not None:
            self.errors.close()
        if self.path == STDIO:
            return
        if self.is_npy:
            self.file.seek(0)
            self.file.write(_npy_header(self.state.rows, self.state.width))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        _beside(self.path, ".partial").replace(self.path)
        _beside(self.path, ".state.json").unlink(missing_ok=True)


def process(
    source: Path,
    out: Path,
    *,
    settings: Mapping[str, Any],
    text: str,
    chunk: int,
    work: Callable[[Sequence[Row]], Sequence[bytes | Failed]],
    skip: bool,
    advance: Callable[[int], None],
) -> Summary:
    """Every row of the input to one result of the output, a chunk at a time.

    Args:
        source: The input; "-" is standard input.
        out: The output; "-" is standard output, which cannot be gone on with.
        settings: What must be the same for a run to go on.
        text: The field that a line of plain text becomes.
        chunk: Rows that are worked on together, and lost together if the run breaks.
        work: Makes the results of rows, one each.
        skip: Note what fails beside the output, instead of stopping there.
        advance: Called with numbers of rows that are done.

    Raises:
        InvalidInput: A row of which nothing can be made, unless it is skipped.
        ConfigurationError: The output is there already, or was begun otherwise.
    """
    with opened(source) as file:
        lines = enumerate(file, 1)
        output = _begin(out, settings)
        reader, digest = Reader(source, text), hashlib.sha256()
        try:
            _skip_known(source, lines, reader, digest, output)
            advance(output.resumed_at)
            number = output.state.lines
            pending: list[Row | Failed] = []
            for number, raw in lines:
                digest.update(raw)
                row = reader.row(number, raw)
                if row is not None:
                    pending.append(row)
                if len(pending) >= chunk:
                    _work_off(output, pending, work, skip)
                    output.keep(number, digest.hexdigest())
                    advance(len(pending))
                    pending = []
            _work_off(output, pending, work, skip)
            if not output.state.rows and not output.state.skipped:
                raise InvalidInput(f"{'standard input' if source == STDIO else source} holds no rows.")
            output.keep(number, digest.hexdigest())
            advance(len(pending))
        except BaseException:
            _break_off(output)
            raise
        output.finish()
    return Summary(str(out), output.state.rows, output.state.skipped, output.resumed_at)


def _work_off(
    output: _Output,
    pending: Sequence[Row | Failed],
    work: Callable[[Sequence[Row]], Sequence[bytes | Failed]],
    skip: bool,
) -> None:
    bad = [one for one in pending if isinstance(one, Failed)]
    if bad and not skip:
        raise InvalidInput(f"{bad[0].error}. --on-error skip leaves such lines out and notes them.")
    rows = [one for one in pending if isinstance(one, Row)]
    results = work(rows) if rows else []
    failed = [*bad, *(one for one in results if isinstance(one, Failed))]
    output.append((one for one in results if isinstance(one, bytes)), sorted(failed, key=lambda one: one.line))


def _break_off(output: _Output) -> None:
    for file in (output.file, output.errors):
        if file is not None and output.path != STDIO:
            file.close()
    if output.path == STDIO:
        return
    if not output.state.lines:
        _beside(output.path, ".partial").unlink(missing_ok=True)
    else:
        kept = _beside(output.path, ".partial")
        sys.stderr.write(f"{output.state.lines} lines are done, in {kept}: the same command goes on from there.\n")


def _begin(out: Path, settings: Mapping[str, Any]) -> _Output:
    if out == STDIO:
        return _Output(out, _State(settings), sys.stdout.buffer)
    if out.exists():
        raise ConfigurationError(f"{out} is there already: remove it, or name another file with -o.")
    partial, noted = _beside(out, ".partial"), _beside(out, ".state.json")
    try:
        if not (partial.exists() and noted.exists()):
            _beside(out, ".errors.jsonl").unlink(missing_ok=True)  # of a run before
            file = partial.open("w+b")
            if out.suffix == ".npy":
                file.write(bytes(_NPY_HEADER))
            return _Output(out, _State(settings), file)
        state = _State(**orjson.loads(noted.read_bytes()))
        _check_settings(out, state, settings)
        file = partial.open("r+b")
        file.truncate(state.size)
        file.seek(state.size)
        errors = None
        if state.errors_size:
            errors = _beside(out, ".errors.jsonl").open("r+b")
            errors.truncate(state.errors_size)
            errors.seek(state.errors_size)
        return _Output(out, state, file, errors, resumed_at=state.rows + state.skipped)
    except OSError as exc:
        raise ConfigurationError(f"{exc.filename or out} cannot be written: {exc.strerror}.") from exc
    except (orjson.JSONDecodeError, TypeError) as exc:
        raise ConfigurationError(f"{noted} cannot be read: remove it and {partial} to begin anew.") from exc


def _check_settings(out: Path, state: _State, settings: Mapping[str, Any]) -> None:
    now = orjson.loads(orjson.dumps(dict(settings)))
    differs = [name for name in {**state.settings, **now} if state.settings.get(name) != now.get(name)]
    if differs:
        was, name = state.settings.get(differs[0]), differs[0]
        raise ConfigurationError(
            f"{_beside(out, '.partial')} was begun with {name} {was!r}, and now it is {now.get(name)!r}. Run it as it "
            f"was begun, or remove it and {_beside(out, '.state.json')} to begin anew."
        )


def _skip_known(source: Path, lines: Iterator[tuple[int, bytes]], reader: Reader, digest: Any, output: _Output) -> None:
    """Read over the lines that are done, and make sure that they are the same."""
    state = output.state
    read = 0
    while read < state.lines and (numbered := next(lines, None)) is not None:
        read, raw = numbered
        digest.update(raw)
        reader.row(read, raw)
    if state.lines and digest.hexdigest() != state.sha256:
        raise ConfigurationError(
            f"{_beside(output.path, '.partial')} was made of another input: the first {state.lines} lines of {source} "
            f"are not those. Remove it and {_beside(output.path, '.state.json')} to begin anew."
        )


def _beside(out: Path, ending: str) -> Path:
    return out.with_name(out.name + ending)


def _npy_header(rows: int, width: int) -> bytes:
    from numpy.lib import format as npy

    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, width)})
    header = file.getvalue()
    assert len(header) == _NPY_HEADER, len(header)
    return header
