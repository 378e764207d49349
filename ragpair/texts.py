"""Texts before they are sent: what is no text is refused, what stands twice is sent once. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping

from ragpair.errors import InvalidInput, RagpairError

_SURROGATE = re.compile("[\ud800-\udfff]")


def check_texts(
    texts: Iterable[str],
    what: str,
    *,
    blank_ok: bool = False,
    failures: MutableMapping[int, RagpairError] | None = None,
) -> list[str]:
    """The texts as a list. What is no text is refused, before anything is sent, by its index.

    Args:
        texts: What was given.
        what: What to call one in messages.
        blank_ok: Whether blank ones are let through.
        failures: Where errors go, by index, if they should not be raised; such texts are in the list as they are.

    Raises:
        InvalidInput: Not a list of strings, a blank text, or a lone surrogate, which no tokenizer takes.
    """
    check_many(texts, what)
    given = list(texts)
    for index, text in enumerate(given):
        if type(text) is str and text.isascii() and text and not text.isspace():
            continue  # nearly all are; the rest is looked at closely
        try:
            check_text(text, f"{what} {index}", index, blank_ok=blank_ok)
        except InvalidInput as exc:
            if failures is None:
                raise
            failures[index] = exc
    return given


def check_many(texts: object, what: str) -> None:
    """Refuse what is not a row of texts.

    The letters of a single string would be embedded one by one, and of a dict its keys; a set has no order to know the
    results by.
    """
    if isinstance(texts, str | bytes | Mapping | set | frozenset) or not isinstance(texts, Iterable):
        many = "queries" if what == "query" else f"{what}s"
        cure = " list(d.values()) are the values of a dict d." if isinstance(texts, Mapping) else ""
        given = "None" if texts is None else f"one {type(texts).__name__}"
        raise InvalidInput(f"Pass a list of {many}, not {given}.{cure}")


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


def distinct(items: Iterable[tuple[int, str]]) -> dict[str, int]:
    """Each text once, with the index where it stands first."""
    first: dict[str, int] = {}
    for index, text in items:
        first.setdefault(text, index)
    return first


def is_blank(text: str) -> bool:
    """Whether a text holds nothing."""
    return not text or text.isspace()
