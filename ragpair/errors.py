"""Everything that ragpair raises.

RagpairError
├── ConfigurationError        an option that this engine or model cannot honour, no such model, wrong engine
├── InvalidInput              a text that is no text (None, bytes, blank, a lone surrogate): names its index
└── EndpointError             the server was asked
    ├── EndpointUnreachable   no answer: refused, dropped, timed out
    ├── EndpointRejected      an answer with an error status that no retry would mend
    ├── EndpointOverloaded    429, 502, 503 or 504 still, after all retries
    ├── MalformedReply        200, but wrong count, width, index, or not a number
    └── InputTooLong          a text over the model's limit: names its index, its length and the limit

A message names the endpoint, what was expected, what came, and what mends it. Facts are attributes. Every error
survives pickling (worker processes send them home), and none ever holds an API key.
"""

from __future__ import annotations

import sys
import warnings
from typing import Self

# Packages that no user wrote: a warning points at the first line above theirs.
_BETWEEN = {"ragpair", "langchain_ragpair", "llamaindex_ragpair", "langchain_core", "langchain_classic", "asyncio"}
_BETWEEN |= {"llama_index", "llama_index_instrumentation"}


class RagpairError(Exception):
    """Base of everything that this package raises on purpose."""


class RagpairWarning(UserWarning):
    """Something that works, but is probably not what was meant. Shown once an object."""


def warn(message: str) -> None:
    """A RagpairWarning at the line of the user that led here."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, RagpairWarning, stacklevel=level)


class ConfigurationError(RagpairError, ValueError):
    """An option, model or engine that cannot do what was asked."""


class InvalidInput(RagpairError, ValueError):
    """A text that cannot be sent.

    Attributes:
        index: Position of the text in the list that was given, or None for a query.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class EndpointError(RagpairError):
    """The server was asked, and something went wrong.

    Attributes:
        endpoint: Base URL of the server.
        index: Position of the text that it is about in the list that was given; of the first one where it is about
            all texts of a request; None if it is about no text, or about the query.
    """

    def __init__(self, message: str, *, endpoint: str = "", index: int | None = None) -> None:
        super().__init__(message)
        self.endpoint = endpoint
        self.index = index

    def about(self, what: str, index: int) -> Self:
        """The same error, which now says which texts it is about."""
        if self.index is None:
            self.index = index
            self.args = (f"{self} ({what})", *self.args[1:])
        return self


class EndpointUnreachable(EndpointError):
    """No answer came."""


class EndpointRejected(EndpointError):
    """The server answered with an error status.

    Attributes:
        status: HTTP status.
        detail: The server's own words, one line, cut to a few hundred characters.
    """

    def __init__(
        self, message: str, *, endpoint: str = "", index: int | None = None, status: int = 0, detail: str = ""
    ) -> None:
        super().__init__(message, endpoint=endpoint, index=index)
        self.status = status
        self.detail = detail


class EndpointOverloaded(EndpointRejected):
    """The server was still busy after all retries."""


class MalformedReply(EndpointError):
    """The server said 200, but what came is not what was asked for."""


class InputTooLong(EndpointError):
    """A text is longer than the model takes.

    Attributes:
        length: Tokens of the text where the server said so, else None.
        limit: Tokens that the server takes, where known, else None.
    """

    def __init__(
        self,
        message: str,
        *,
        endpoint: str = "",
        index: int | None = None,
        length: int | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(message, endpoint=endpoint, index=index)
        self.length = length
        self.limit = limit
