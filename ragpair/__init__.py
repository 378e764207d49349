"""Self-hosted embedding models and rerankers: the vectors and scores that their authors define, from any engine.

from ragpair import Embedder, Reranker

vectors = Embedder("http://localhost:8000").embed_queries(["where is my parcel?"])
scores = Reranker("http://localhost:8001").score("where is my parcel?", ["Track it in ...", "Bananas are ..."])
"""

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
from ragpair.pair import Embedder, Ranked, Reranker

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
    "RagpairError",
    "RagpairWarning",
    "Ranked",
    "Reranker",
]

__version__ = "0.1.0"
