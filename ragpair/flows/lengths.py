"""Texts that are too long: counted before they can do harm, cut to what fits, or named in an error.

Only the user's text is ever cut, never the prompt around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ragpair.dialects.base import Dialect, Served, TooLong, error_text
from ragpair.errors import InputTooLong
from ragpair.wire import Call, Flow, Reply, send

# What a tokenizer may add around a pair beyond what it adds around one text.
PAIR_SPECIALS = 4


def fatal(dialect: Dialect, served: Served, inputs: Iterable[tuple[str, ...]]) -> Flow[TooLong | None]:
    """The first input, a text or a pair, that would kill the server: counted before it is sent, if it may be so long.

    The inputs are made only for a server that has such a length. A pair has as many special tokens as its texts have
    alone, and no text has more tokens than bytes and special tokens.
    """
    if served.fatal is None:
        return None
    for texts in inputs:
        if sum(len(text.encode()) + PAIR_SPECIALS for text in texts) < served.fatal:
            continue
        count = 0
        for text in texts:
            count += (yield from count_tokens(dialect, served, text)) or 0
        if count >= served.fatal:
            return TooLong(count, served.limit)
    return None


def send_shorter(
    dialect: Dialect,
    served: Served,
    limit: int | None,
    endpoint: str,
    item: tuple[int, str],
    render: Callable[[str], str],
    call: Callable[[str], Flow[Call]],
) -> Flow[Reply]:
    """The reply to the longest beginning of the text that fits, or nearly; by token counts where the engine counts.

    Raises:
        InputTooLong: Not even its beginning fits.
    """
    index, text = item
    keep = len(text)
    tried = False
    while keep > 0:
        short = text[:keep]
        count = yield from count_tokens(dialect, served, render(short))
        if count is not None and limit is not None and count > limit:
            keep = min(keep - 1, keep * limit // count)
            continue
        if tried or keep < len(text):
            reply = yield from send((yield from call(short)))
            if dialect.too_long(reply) is None:
                return reply
        tried = True
        keep = keep * 4 // 5
    raise InputTooLong(
        f"{served.model!r} has no room for any of text {index}: the query or the prompt beside it fills the limit of "
        f"{served.limit or limit} tokens. Shorten the query, or the instruction if you set one.",
        endpoint=endpoint,
        index=index,
        limit=limit,
    )


def count_tokens(dialect: Dialect, served: Served, text: str) -> Flow[int | None]:
    """Tokens of a text, special tokens included; None if the server does not tell."""
    call = dialect.count_call(served, text)
    if call is None:
        return None
    reply = yield from send(call)
    return dialect.read_count(reply) if reply.ok else None


def too_long_error(
    served: Served, long: TooLong, reply: Reply | None, what: str, index: int, endpoint: str
) -> InputTooLong:
    """The error for a text that does not fit."""
    limit = long.limit or served.limit
    has = f"has {long.length} tokens" if long.length else "has more tokens than fit"
    takes = f"; {served.model!r} takes {limit}" if limit else ""
    said = (
        f"{reply.endpoint} said: {error_text(reply)}" if reply else "it was not sent, since the server would die of it"
    )
    return InputTooLong(
        f"{what} {has}{takes} ({said}). Split it into passages, or pass too_long='truncate' to keep its beginning.",
        endpoint=reply.endpoint if reply else endpoint,
        index=index,
        length=long.length,
        limit=limit,
    )
