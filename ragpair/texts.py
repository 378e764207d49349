"""Texts before they are sent: what is no text is refused, what stands twice is sent once, much is split. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from ragpair.errors import InvalidInput

# A request holds at most this many characters, so that no batch of long texts outgrows a server's or proxy's limit.
_BATCH_CHARS = 400_000
_SURROGATE = re.compile("[\ud800-\udfff]")


def check_texts(texts: Iterable[str], what: str, *, blank_ok: bool = False) -> list[str]:
    """The texts as a list. What is no text is refused, before anything is sent, by its index.

    Raises:
        InvalidInput: Not a list of strings, a blank text, or a lone surrogate, which no tokenizer takes.
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise InvalidInput(f"pass a list of {what}s, not one {type(texts).__name__}.")
    given = list(texts)
    for index, text in enumerate(given):
        check_text(text, f"{what} {index}", index, blank_ok=blank_ok)
    return given


def check_text(text: str, what: str, index: int | None = None, *, blank_ok: bool = False) -> None:
    """The same for one text."""
    if not isinstance(text, str):
        raise InvalidInput(f"{what} is {text!r:.60}, a {type(text).__name__}; it must be a str.", index=index)
    if not blank_ok and is_blank(text):
        raise InvalidInput(f"{what} is blank: it has no meaning that could be embedded. Leave it out.", index=index)
    if not text.isascii() and (found := _SURROGATE.search(text)):
        raise InvalidInput(
            f"{what} has a lone surrogate ({found[0]!a}) at position {found.start()}: it was decoded wrongly "
            "somewhere. text.encode('utf-8', 'replace').decode() replaces it.",
            index=index,
        )


def split(items: Sequence[tuple[int, str]], size: int) -> Iterator[Sequence[tuple[int, str]]]:
    """Batches of at most `size` texts, and of a bounded number of characters."""
    start = chars = 0
    for position, (_, text) in enumerate(items):
        if position > start and (position - start >= size or chars + len(text) > _BATCH_CHARS):
            yield items[start:position]
            start, chars = position, 0
        chars += len(text)
    if start < len(items):
        yield items[start:]


def distinct(texts: Sequence[str], skip: Callable[[str], bool] = lambda _: False) -> dict[str, int]:
    """Each text once, with the index where it stands first."""
    first: dict[str, int] = {}
    for index, text in enumerate(texts):
        if not skip(text):
            first.setdefault(text, index)
    return first


def is_blank(text: str) -> bool:
    """Whether a text holds nothing."""
    return not text or text.isspace()
