"""Files of texts, read row by row.

A line of the input is a row: a JSON object in JSONL, a text otherwise. A line that is neither is no exception but a
value, since whoever reads on may leave it out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from ragpair.errors import (
    ConfigurationError,
    EndpointRejected,
    InputTooLong,
    InvalidInput,
    MalformedReply,
    RagpairError,
)
from ragpair.retry import OF_A_TEXT

STDIO = Path("-")
_JSONL, _TEXT = (".jsonl", ".ndjson"), (".txt",)
_LINES = "JSONL, one object a line (of a JSON array: jq -c '.[]'), or one text a line in a .txt file"
_TABLES = (".csv", ".tsv", ".xlsx", ".json", ".parquet")  # whose lines are no rows


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the input.

    Attributes:
        index: Its number among the rows, from 0.
        line: The line on which it stands, from 1.
        fields: What stands there: the JSON object, or {"text": line}.
    """

    index: int
    line: int
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A field that must be a text.

        Raises:
            InvalidInput: It is not there, or no text; names the line.
        """
        value = self.fields.get(name)
        if not isinstance(value, str):
            there = ", ".join(map(repr, self.fields)) or "nothing"
            what = (
                f"no field {name!r}, but {there}" if name not in self.fields else f"no text in {name!r}: {value!r:.60}"
            )
            raise InvalidInput(f"line {self.line} holds {what}. --field names the field with the text.")
        if not value.strip():
            raise InvalidInput(f"line {self.line} is blank: it has no meaning that could be embedded.")
        return value


@dataclass(frozen=True, slots=True)
class Failed:
    """A row of which nothing could be made."""

    line: int
    id: Any
    error: str


def refuse_names(row: Row, *ours: str, but: str = "") -> None:
    """Raises an error if a row already has a field that its result would take the place of."""
    for name in ours:
        if name in row.fields and name != but:
            raise InvalidInput(
                f"line {row.line} has a field {name!r} of its own, where the result would stand: rename it."
            )


def of_row(row: Row, error: RagpairError, said: str) -> RagpairError:
    """An error that is about this row alone, with its line; or the error as it is, since other rows fare no better."""
    if isinstance(error, EndpointRejected):
        alone = error.status in OF_A_TEXT
    else:
        alone = isinstance(error, InvalidInput | InputTooLong | MalformedReply)
    return InvalidInput(f"line {row.line}: {said}") if alone else error


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file, or standard input for "-".

    Raises:
        ConfigurationError: It cannot be read.
    """
    if path == STDIO:
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror}.") from exc
    with file:
        yield file


def count_lines(path: Path) -> int | None:
    """For a progress bar; None where it cannot be known beforehand."""
    if path == STDIO:
        return None
    with opened(path) as file:
        return sum(1 for _ in file)


class Reader:
    """Lines to rows. Whether they are JSONL is told by the file's name, or else by the first line that holds anything.

    Args:
        path: Of the input.
        text: The field that a line of plain text becomes.
    """

    def __init__(self, path: Path, text: str) -> None:
        self._text = text
        suffix = path.suffix.lower()
        if suffix in _TABLES:
            raise ConfigurationError(f"{path} is a {suffix} file, whose lines are no rows. Make it {_LINES}.")
        self._is_json = True if suffix in _JSONL else False if suffix in _TEXT else None
        self._rows = 0

    def row(self, number: int, raw: bytes) -> Row | Failed | None:
        """The row of a line; None if it counts for nothing (a blank line of JSONL)."""
        blank = not raw.strip()
        if self._is_json is None and not blank:
            self._is_json = raw.lstrip().startswith(b"{")
            if raw.split() == [b"["] or raw.lstrip().startswith(b"[{"):
                raise InvalidInput(f"the input is a JSON array, whose lines are no rows. Make it {_LINES}.")
        if blank and self._is_json:
            return None
        index, self._rows = self._rows, self._rows + 1
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as exc:
            return Failed(number, None, f"line {number} is no UTF-8 ({exc.reason} at byte {exc.start})")
        if not self._is_json:
            return Row(index, number, {self._text: line.rstrip("\r\n")})
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as exc:
            return Failed(number, None, f"line {number} is no JSON: {exc}")
        if not isinstance(fields, dict):
            return Failed(number, None, f"line {number} is no JSON object")
        return Row(index, number, fields)


def read_texts(path: Path, name: str) -> Iterator[tuple[Row, str]]:
    """All rows with their texts.

    Raises:
        InvalidInput: A line that holds none.
    """
    reader = Reader(path, name)
    with opened(path) as file:
        for number, raw in enumerate(file, 1):
            row = reader.row(number, raw)
            if isinstance(row, Failed):
                raise InvalidInput(f"{path}: {row.error}.")
            if row is not None:
                yield row, row.text(name)
