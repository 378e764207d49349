"""BM25 vectors for hybrid search with LlamaIndex's QdrantVectorStore."""

from __future__ import annotations

from collections.abc import Sequence

from ragpair.texts import check_texts

try:
    from ragpair.bm25 import Bm25Encoder
except ModuleNotFoundError as exc:
    raise ImportError('RagpairSparseEncoder needs its extra: pip install "ragpair[llamaindex,qdrant]"') from exc

Encoding = tuple[list[list[int]], list[list[float]]]


class RagpairSparseEncoder:
    """BM25 vectors: search by words, beside the search by meaning. No server, no model, no download.

    Running: nothing; pip install "ragpair[llamaindex,qdrant]".

        from llamaindex_ragpair import RagpairSparseEncoder

        bm25 = RagpairSparseEncoder()
        store = QdrantVectorStore(
            "help", client=client, enable_hybrid=True, sparse_doc_fn=bm25.documents, sparse_query_fn=bm25.queries,
            sparse_config=SparseVectorParams(modifier=Modifier.IDF),
        )

    The modifier makes rare words count more; without it, the store counts all words alike. Both functions pickle.

    Chinese, Japanese and Thai are split into words by dictionaries, alone or mixed with other writing, whatever the
    `language`; the first such text loads them (0.3 s, 50 MB). Collections in Japanese want language="japanese", or
    words of Chinese characters alone are read as Chinese. Traditional characters are split worse than simplified ones,
    and find them only where a word is written alike. Korean is split at spaces only, so that its words with and without
    particles do not find each other. Numbers and codes are words; full-width ones do not find plain ones.

    Args:
        language: Whose stop words and word stems, by Qdrant's names ("english", "german", "de"); for texts with spaces.
        k: How much more a word counts that occurs again.
        b: How much less a word counts in a long text, 0 to 1.
        avg_len: Words in a text of usual length, stop words left out.

    Raises:
        ConfigurationError: A language that Qdrant has no stop words for, or a number out of range.
    """

    def __init__(self, language: str = "english", *, k: float = 1.2, b: float = 0.75, avg_len: float = 256.0) -> None:
        self._encoder = Bm25Encoder(language, k, b, avg_len)

    def documents(self, texts: Sequence[str]) -> Encoding:
        """Indices and weights of the words of each text that is searched in; a blank one has none."""
        check_texts(texts, "document", blank_ok=True)
        found = [self._encoder.document(text) for text in texts]
        return [one.indices for one in found], [one.values for one in found]

    def queries(self, texts: Sequence[str]) -> Encoding:
        """The same for what is searched for: each word weighs 1."""
        check_texts(texts, "query", blank_ok=True)
        found = [self._encoder.query(text) for text in texts]
        return [one.indices for one in found], [one.values for one in found]
