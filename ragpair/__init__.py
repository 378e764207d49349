"""Self-hosted embedding models and rerankers: the vectors and scores that their authors define, from any engine.

from ragpair import Embedder, Reranker

vectors = Embedder("http://localhost:8000").embed_queries(["where is my parcel?"])
scores = Reranker("http://localhost:8001").score("where is my parcel?", ["Track it in ...", "Bananas are ..."])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ragpair.errors import (
    ConfigurationError,
    EndpointError,
    EndpointOverloaded,
    EndpointRejected,
    EndpointUnreachable,
    InputTooLong,
    InvalidInput,
    MalformedReply,
    RagpairError,
    RagpairWarning,
)

if TYPE_CHECKING:
    from ragpair.client import Partial
    from ragpair.embedder import Embedder
    from ragpair.reranker import Ranked, Reranker

__all__ = [
    "ConfigurationError",
    "Embedder",
    "EndpointError",
    "EndpointOverloaded",
    "EndpointRejected",
    "EndpointUnreachable",
    "InputTooLong",
    "InvalidInput",
    "MalformedReply",
    "Partial",
    "RagpairError",
    "RagpairWarning",
    "Ranked",
    "Reranker",
]

__version__ = "0.1.0"


_HOMES = {
    "Embedder": "ragpair.embedder",
    "Partial": "ragpair.client",
    "Ranked": "ragpair.reranker",
    "Reranker": "ragpair.reranker",
}


def __getattr__(name: str) -> Any:
    """What needs numpy is imported when it is asked for: that is most of the time that an import takes."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
