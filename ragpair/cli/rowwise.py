"""Rows through a library call that works on many of them at once, and out again in their order.

What is no input, or turns out to be none, stands in its place as a value, for whoever leaves it out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

from ragpair.cli.rows import Failed, Row
from ragpair.errors import InvalidInput

Given = TypeVar("Given")
Found = TypeVar("Found")

_HOPELESS = 1000  # rows that fail before the first that does not: something else is wrong than they


def rowwise(
    rows: Iterator[Row | Failed],
    prepare: Callable[[Row], Given],
    work: Callable[[Iterator[Given]], Iterator[Found]],
    finish: Callable[[Row, Found], bytes],
    *,
    skip: bool,
) -> Generator[bytes | Failed]:
    """One result a row, in order.

    Args:
        rows: The input, read as `work` takes it.
        prepare: What goes into the work for a row.
        work: One result for each of what it is given, in order; it may take many ahead.
        finish: What is written of a row.
        skip: Whether rows that could not be read, or that `prepare` or `finish` refuse, stand as `Failed` in the
            results.

    Raises:
        InvalidInput: A row failed and `skip` is not set, or the first thousand were.
    """
    waiting: deque[Row | Failed] = deque()  # what the work has not answered yet, and what failed between
    failures, done = 0, False

    def failed(one: Failed) -> Failed:
        nonlocal failures
        failures += 1
        if not done and failures == _HOPELESS:
            raise InvalidInput(f"The first {_HOPELESS:,} rows that were tried all failed; the last one: {one.error}")
        return one

    def refused(row: Row, exc: InvalidInput) -> Failed:
        if not skip:
            raise exc
        return failed(Failed(row.line, row.fields.get("id"), str(exc)))

    def given() -> Iterator[Given]:
        for row in rows:
            if isinstance(row, Failed):
                if not skip:
                    raise InvalidInput(f"{row.error}. --on-error skip leaves such lines out and notes them.")
                waiting.append(failed(row))
                continue
            try:
                made = prepare(row)
            except InvalidInput as exc:
                waiting.append(refused(row, exc))
                continue
            waiting.append(row)
            yield made

    for found in work(given()):
        while isinstance(row := waiting.popleft(), Failed):
            yield row
        try:
            result: bytes | Failed = finish(row, found)
            done = True
        except InvalidInput as exc:
            result = refused(row, exc)
        yield result
    yield from (one for one in waiting if isinstance(one, Failed))
