"""ragpair for LlamaIndex: embeddings and a reranker from your own servers, and BM25 vectors for search in Qdrant.

from llamaindex_ragpair import RagpairEmbedding, RagpairRerank

Settings.embed_model = RagpairEmbedding(base_url="http://localhost:8000")
reranker = RagpairRerank(base_url="http://localhost:8001", top_n=3)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    import llama_index.core  # noqa: F401
except ModuleNotFoundError as exc:
    raise ImportError('llamaindex_ragpair needs LlamaIndex: pip install "ragpair[llamaindex]"') from exc

from llamaindex_ragpair.embedding import RagpairEmbedding
from llamaindex_ragpair.rerank import RagpairRerank

if TYPE_CHECKING:
    from llamaindex_ragpair.blend import RagpairSignalBlend
    from llamaindex_ragpair.sparse import RagpairSparseEncoder

__all__ = ["RagpairEmbedding", "RagpairRerank", "RagpairSignalBlend", "RagpairSparseEncoder"]

_HOMES = {
    "RagpairSignalBlend": "llamaindex_ragpair.blend",  # needs numpy, which is most of the time that an import takes
    "RagpairSparseEncoder": "llamaindex_ragpair.sparse",  # wants an extra of its own
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
