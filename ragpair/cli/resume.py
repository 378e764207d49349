"""Rows to results in a file that grows, by runs that go on where the last one broke off.

Results grow in `OUT.partial`, in the order of the rows, while the rows after them are being worked on. Once a second,
and when a run breaks, `OUT.state.json` says how far they reach, of which input (by the hash of the lines that were
read), by which settings. The same command goes on from there, and one with another input or other settings is refused.
When all is done, `OUT.partial` takes its place as `OUT` in one step: a file of that name is whole.

A .npy file begins with its shape, which is known at the end: its header is written last, into room that was left.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from ragpair.cli.rows import STDIO, Failed, Reader, Row, opened
from ragpair.errors import ConfigurationError, InvalidInput

Work = Callable[[Iterator[Row | Failed]], Generator[bytes | Failed]]

_NPY_HEADER = 128  # bytes; numpy leaves room in it for any count
_KEEP_EVERY = 1.0  # seconds; a machine that dies costs so much work


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run left behind."""

    out: str
    rows: int
    skipped: int
    resumed_at: int


@dataclass(frozen=True, slots=True)
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
    """The growing file, what is known of it, and the file of what failed.

    The state is one value and is replaced after a result has been written: whatever interrupts that, it counts whole
    results.
    """

    path: Path
    state: _State
    file: BinaryIO
    errors: BinaryIO | None = None
    resumed_at: int = 0
    kept_at: float = field(default_factory=time.monotonic)
    kept: int = 0
    """How many lines are done by the state on the disk."""

    @property
    def is_npy(self) -> bool:
        return self.path.suffix == ".npy"

    def append(self, result: bytes | Failed, lines: int, sha256: str) -> None:
        state = replace(self.state, lines=lines, sha256=sha256)
        if isinstance(result, Failed):
            size = state.errors_size + self._note(result)
            self.state = replace(state, skipped=state.skipped + 1, errors_size=size)
            return
        width = len(result) // 4 if self.is_npy else 0
        if state.width and state.width != width:
            raise ConfigurationError(
                f"The vectors have {width} numbers now, and had {state.width}: another model is served than before."
            )
        self.file.write(result)
        self.state = replace(state, rows=state.rows + 1, size=state.size + len(result), width=width)

    def _note(self, failed: Failed) -> int:
        if self.path == STDIO:
            return sys.stderr.write(f"skipped: {failed.error}\n")
        if self.errors is None:
            self.errors = _beside(self.path, ".errors.jsonl").open("wb")
        return self.errors.write(orjson.dumps(asdict(failed)) + b"\n")

    def keep(self) -> None:
        """What was appended is on the disk before the state says so."""
        self.kept_at = time.monotonic()
        if self.path == STDIO:
            self.file.flush()
            return
        for file in (self.file, self.errors):
            if file is not None:
                file.flush()
                os.fsync(file.fileno())
        temporary = _beside(self.path, ".state.json.tmp")
        temporary.write_bytes(orjson.dumps(asdict(self.state)))
        temporary.replace(_beside(self.path, ".state.json"))
        self.kept = self.state.lines

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
    work: Work,
    advance: Callable[[int], None],
) -> Summary:
    """Every row of the input to one result of the output.

    Args:
        source: The input; "-" is standard input.
        out: The output; "-" is standard output, which cannot be gone on with.
        settings: What must be the same for a run to go on.
        text: The field that a line of plain text becomes.
        work: Makes one result of each row, in order; it may take rows ahead. A `Failed` is noted beside the output.
        advance: Called with numbers of rows that are done.

    Raises:
        InvalidInput: The input holds no rows.
        ConfigurationError: The output is there already, or was begun otherwise.
    """
    with opened(source) as file:
        lines = enumerate(file, 1)
        output = _begin(out, settings)
        reader, digest = Reader(source, text), hashlib.sha256()
        reached: deque[tuple[int, str]] = deque()  # for each row that is worked on: its line, and the hash up to it
        try:
            _skip_known(source, lines, reader, digest, output)
            advance(output.resumed_at)
            with closing(work(_rows(lines, reader, digest, reached))) as results:
                for result in results:
                    with _writing(out):
                        output.append(result, *reached.popleft())
                        if time.monotonic() - output.kept_at > _KEEP_EVERY:
                            output.keep()
                    advance(1)
            if not output.state.rows and not output.state.skipped:
                raise InvalidInput(f"{'standard input' if source == STDIO else source} holds no rows.")
            with _writing(out):
                output.keep()
        except BaseException:
            _break_off(output)
            raise
        with _writing(out):
            output.finish()
    return Summary(str(out), output.state.rows, output.state.skipped, output.resumed_at)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # whoever reads has had enough, which is no error of ours
        raise
    except OSError as exc:
        where = "standard output" if out == STDIO else out
        raise ConfigurationError(f"{where} cannot be written: {exc.strerror}.") from exc


def _rows(
    lines: Iterator[tuple[int, bytes]], reader: Reader, digest: Any, reached: deque[tuple[int, str]]
) -> Iterator[Row | Failed]:
    for number, raw in lines:
        digest.update(raw)
        row = reader.row(number, raw)
        if row is None:
            continue
        reached.append((number, digest.hexdigest()))
        yield row


def _break_off(output: _Output) -> None:
    if output.path == STDIO:
        return
    if output.state.lines:
        with suppress(OSError):  # a full disk, say: what was kept before counts
            output.keep()
    done = output.kept
    for file in (output.file, output.errors):
        if file is not None:
            with suppress(OSError):
                file.close()
    partial = _beside(output.path, ".partial")
    if not done:
        partial.unlink(missing_ok=True)
    else:
        sys.stderr.write(f"{done} lines are done, in {partial}: the same command goes on from there.\n")


def _begin(out: Path, settings: Mapping[str, Any]) -> _Output:
    if out == STDIO:
        return _Output(out, _State(settings), sys.stdout.buffer)
    if out.exists():
        raise ConfigurationError(f"{out} is there already: remove it, or name another file with -o.")
    partial, noted = _beside(out, ".partial"), _beside(out, ".state.json")
    try:
        if not (partial.exists() and noted.exists()):
            for ending in (".errors.jsonl", ".state.json"):  # of a run before
                _beside(out, ending).unlink(missing_ok=True)
            file = partial.open("w+b")
            if out.suffix == ".npy":
                file.write(bytes(_NPY_HEADER))
            return _Output(out, _State(settings, size=file.tell()), file)
        state = _State(**orjson.loads(noted.read_bytes()))
        _check_settings(out, state, settings)
        if partial.stat().st_size < state.size:
            raise ConfigurationError(f"{partial} is shorter than {noted} says: remove both to begin anew.")
        file = partial.open("r+b")
        file.truncate(state.size)
        file.seek(state.size)
        errors = None
        if state.errors_size:
            errors = _beside(out, ".errors.jsonl").open("r+b")
            errors.truncate(state.errors_size)
            errors.seek(state.errors_size)
        return _Output(out, state, file, errors, resumed_at=state.rows + state.skipped, kept=state.lines)
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
