"""ragpair for LangChain: embeddings and a reranker from your own servers, and BM25 vectors for hybrid search in Qdrant.

from langchain_ragpair import RagpairEmbeddings, RagpairRerank

embeddings = RagpairEmbeddings(base_url="http://localhost:8000")
reranker = RagpairRerank(base_url="http://localhost:8001", top_n=3)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    import langchain_core  # noqa: F401
except ModuleNotFoundError as exc:
    raise ImportError('langchain_ragpair needs LangChain: pip install "ragpair[langchain]"') from exc

from langchain_ragpair.embeddings import RagpairEmbeddings
from langchain_ragpair.rerank import RagpairRerank

if TYPE_CHECKING:
    from langchain_ragpair.blend import RagpairSignalBlend
    from langchain_ragpair.sparse import RagpairSparseEmbeddings

__all__ = ["RagpairEmbeddings", "RagpairRerank", "RagpairSignalBlend", "RagpairSparseEmbeddings"]

_HOMES = {
    "RagpairSignalBlend": "langchain_ragpair.blend",  # needs numpy, which is most of the time that an import takes
    "RagpairSparseEmbeddings": "langchain_ragpair.sparse",  # wants an extra of its own
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
