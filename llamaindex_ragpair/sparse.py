"""BM25 vectors for hybrid search with LlamaIndex's QdrantVectorStore, offline, for any mix of languages.

Qdrant's word tokenizer takes a Chinese clause for one word; its multilingual one knows Chinese, Japanese and Thai
words, but drops every number, and order numbers are what people search by words for. So each writing gets the tokenizer
that can read it, and the weights are made here from both. For text with spaces alone they are those of
`qdrant_edge.Bm25`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ragpair import ConfigurationError
from ragpair.flows import check_texts

try:
    from qdrant_edge import Bm25, Bm25Config, Language, StopwordsSet, TokenizerType
except ModuleNotFoundError as exc:
    raise ImportError('RagpairSparseEncoder needs its extra: pip install "ragpair[llamaindex,qdrant]"') from exc

# Thai, kana and Chinese characters: written without spaces, so that a dictionary must find the words.
_UNSPACED = re.compile(
    "[\u0e00-\u0e7f\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)

# With this k and no b, the weight that Bm25 gives a term is how often it occurs.
_ENDLESS = 1e12

Encoding = tuple[list[list[int]], list[list[float]]]


@dataclass(frozen=True)
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

    Chinese and Thai are split into words by dictionaries, alone or mixed with other writing, whatever the `language`;
    the first such text loads them (0.3 s, 50 MB). Traditional characters are split worse than simplified ones, and find
    them only where a word is written alike. Japanese is split so as long as a sentence holds kana: bare kanji, as in
    many queries, are taken for Chinese and may find nothing. Korean is split at spaces only, so that its words with and
    without particles do not find each other. Numbers and codes are words; full-width ones do not find plain ones.

    Attributes:
        language: Whose stop words and word stems, by Qdrant's names ("english", "german", "de"); for texts with spaces.
        k: How much more a word counts that occurs again.
        b: How much less a word counts in a long text, 0 to 1.
        avg_len: Words in a text of usual length, stop words left out.

    Raises:
        ConfigurationError: A language that Qdrant has no stop words for, or a number out of range.
    """

    language: str = "english"
    k: float = 1.2
    b: float = 0.75
    avg_len: float = 256.0

    def __post_init__(self) -> None:
        try:
            Bm25(Bm25Config(k=self.k, b=self.b, avg_len=self.avg_len, language=self.language))
        except ValueError as exc:
            raise ConfigurationError(f"RagpairSparseEncoder: {exc}") from None

    def documents(self, texts: Sequence[str]) -> Encoding:
        """Indices and weights of the words of each text that is searched in; a blank one has none."""
        check_texts(texts, "document", blank_ok=True)
        found = [self._count(text) for text in texts]
        return [list(counts) for counts in found], [self._weights(counts) for counts in found]

    def queries(self, texts: Sequence[str]) -> Encoding:
        """The same for what is searched for: each word weighs 1."""
        check_texts(texts, "query", blank_ok=True)
        found = [list(self._count(text)) for text in texts]
        return found, [[1.0] * len(indices) for indices in found]

    def _count(self, text: str) -> Counter[int]:
        counts = _terms(self._spaced, _UNSPACED.sub(" ", text))
        if unspaced := _UNSPACED.findall(text):
            counts.update(_terms(self._unspaced, "\n".join(unspaced)))
        return counts

    def _weights(self, counts: Counter[int]) -> list[float]:
        length = self.k * (1 - self.b + self.b * sum(counts.values()) / self.avg_len)
        return [count * (self.k + 1) / (count + length) for count in counts.values()]

    @cached_property
    def _spaced(self) -> Bm25:
        return Bm25(Bm25Config(k=_ENDLESS, b=0.0, language=self.language))

    @cached_property
    def _unspaced(self) -> Bm25:
        stopwords = StopwordsSet(languages={Language.Chinese, Language.Japanese})
        return Bm25(Bm25Config(k=_ENDLESS, b=0.0, tokenizer=TokenizerType.Multilingual, stopwords=stopwords))

    def __getstate__(self) -> dict[str, object]:  # without the tokenizers, which do not pickle
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def _terms(model: Bm25, text: str) -> Counter[int]:
    vector = model.embed_document(text)
    return Counter({index: round(count) for index, count in zip(vector.indices, vector.values, strict=True)})
