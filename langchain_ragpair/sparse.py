"""Sparse vectors for hybrid search with langchain-qdrant."""

from __future__ import annotations

try:
    from langchain_qdrant import SparseEmbeddings, SparseVector

    from ragpair.bm25 import Bm25Encoder, Weights
except ModuleNotFoundError as exc:
    raise ImportError('RagpairSparseEmbeddings needs its extra: pip install "ragpair[langchain,qdrant]"') from exc

from ragpair.texts import check_text, check_texts


class RagpairSparseEmbeddings(SparseEmbeddings):
    """BM25 vectors: search by words, beside the search by meaning. No server, no model, no download.

    Running: nothing; pip install "ragpair[langchain,qdrant]".

        from langchain_qdrant import QdrantVectorStore, RetrievalMode
        from langchain_ragpair import RagpairSparseEmbeddings
        from qdrant_client.models import Modifier

        sparse = RagpairSparseEmbeddings()
        store = QdrantVectorStore.from_documents(
            documents, embeddings, location=":memory:",
            sparse_embedding=sparse, retrieval_mode=RetrievalMode.HYBRID,
            sparse_vector_params={"modifier": Modifier.IDF},
        )

    The modifier makes rare words count more; without it, the store counts all words alike.

    Chinese, Japanese and Thai are split into words by dictionaries, alone or mixed with other writing, whatever the
    `language`; the first such text loads them (0.2 s, 70 MB). Collections in Japanese want language="japanese", or
    words of Chinese characters alone are read as Chinese. Traditional characters are split worse than simplified ones,
    and find them only where a word is written alike. Korean is split at spaces only, so that its words with and without
    particles do not find each other. Numbers and codes are words.

    Args:
        language: Whose stop words and word stems, by Qdrant's names ("english", "german", "de"), for writing with
            spaces.
        k: How much more a word counts that occurs again.
        b: How much less a word counts in a long text, 0 to 1.
        avg_len: Words in a text of usual length, stop words left out.

    Raises:
        ConfigurationError: A language that Qdrant has no stop words for, or a number out of range.
    """

    def __init__(self, language: str = "english", *, k: float = 1.2, b: float = 0.75, avg_len: float = 256.0) -> None:
        self._encoder = Bm25Encoder(language, k, b, avg_len)

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """Vectors of what is searched in, in the order of the texts; a blank one has no entries."""
        check_texts(texts, "document", blank_ok=True)
        return [_vector(self._encoder.document(text)) for text in texts]

    def embed_query(self, text: str) -> SparseVector:
        """The vector of what is searched for."""
        check_text(text, "the query", blank_ok=True)
        return _vector(self._encoder.query(text))


def _vector(weights: Weights) -> SparseVector:
    return SparseVector(indices=weights.indices, values=weights.values)
