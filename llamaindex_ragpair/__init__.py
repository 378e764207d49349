"""ragpair for LlamaIndex: embeddings and a reranker from your own servers, and BM25 vectors for search in Qdrant.

from llamaindex_ragpair import RagpairEmbedding, RagpairRerank

Settings.embed_model = RagpairEmbedding(base_url="http://localhost:8000")
reranker = RagpairRerank(base_url="http://localhost:8001", top_n=3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import llama_index.core  # noqa: F401
except ModuleNotFoundError as exc:
    raise ImportError('llamaindex_ragpair needs LlamaIndex: pip install "ragpair[llamaindex]"') from exc

from llamaindex_ragpair.embedding import RagpairEmbedding
from llamaindex_ragpair.rerank import RagpairRerank

if TYPE_CHECKING:
    from llamaindex_ragpair.sparse import RagpairSparseEncoder

__all__ = ["RagpairEmbedding", "RagpairRerank", "RagpairSparseEncoder"]


def __getattr__(name: str) -> Any:
    if name == "RagpairSparseEncoder":  # wants an extra of its own
        from llamaindex_ragpair.sparse import RagpairSparseEncoder

        return RagpairSparseEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
