"""ragpair for LangChain: embeddings and a reranker from your own servers, and BM25 vectors for hybrid search in Qdrant.

from langchain_ragpair import RagpairEmbeddings, RagpairRerank

embeddings = RagpairEmbeddings(base_url="http://localhost:8000")
reranker = RagpairRerank(base_url="http://localhost:8001", top_n=3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import langchain_core  # noqa: F401
except ModuleNotFoundError as exc:
    raise ImportError('langchain_ragpair needs LangChain: pip install "ragpair[langchain]"') from exc

from langchain_ragpair.embeddings import RagpairEmbeddings
from langchain_ragpair.rerank import RagpairRerank

if TYPE_CHECKING:
    from langchain_ragpair.sparse import RagpairSparseEmbeddings

__all__ = ["RagpairEmbeddings", "RagpairRerank", "RagpairSparseEmbeddings"]


def __getattr__(name: str) -> Any:
    if name == "RagpairSparseEmbeddings":  # wants an extra of its own
        from langchain_ragpair.sparse import RagpairSparseEmbeddings

        return RagpairSparseEmbeddings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
