"""Texts to BM25 weights, offline, for any mix of languages. Pure; qdrant-edge does the tokenising.

Its word tokenizer takes a Chinese clause for one word (NDCG@10 on our Chinese help desk: 0.06); its multilingual one
knows Chinese, Japanese and Thai words, but drops every number, and order numbers are what people search by words for.
So each writing gets the tokenizer that can read it (0.49), and the weights are made here from both. For text with
spaces they are those of `qdrant_edge.Bm25`, and so are the indices.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Self

from qdrant_edge import Bm25, Bm25Config, Language, StopwordsSet, TokenizerType

from ragpair.errors import ConfigurationError

# Thai, kana and Chinese characters: written without spaces, so that a dictionary must find the words.
_UNSPACED = re.compile(
    "[\u0e00-\u0e7f\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)

# A stop word in kana, beside which Chinese characters are taken for Japanese.
_JAPANESE = "の"

# With this k and no b, the weight that Bm25 gives a term is how often it occurs.
_ENDLESS = 1e12


@dataclass(frozen=True, slots=True)
class Weights:
    """The terms of a text; equal terms have equal indices in every text."""

    indices: list[int]
    values: list[float]


class Bm25Encoder:
    """BM25 without a collection: Qdrant adds how rare a term is, by the modifier "idf" of its sparse vectors.

    Args:
        language: Stop words and stems of what is written with spaces; "japanese" also says that Chinese characters are
            Japanese where no kana stand beside them.
        k: How much more a term counts that occurs again.
        b: How much less it counts in a long text, 0 to 1.
        avg_len: Terms in a text of usual length.

    Raises:
        ConfigurationError: No such language, or a number out of range.
    """

    def __init__(self, language: str, k: float, b: float, avg_len: float) -> None:
        try:
            self._spaced = Bm25(Bm25Config(k=_ENDLESS, b=0.0, language=language))
        except ValueError as exc:
            known = ", ".join(sorted(name.lower() for name in vars(Language) if name[0].isupper()))
            raise ConfigurationError(f"there is no BM25 for language={language!r}, but for {known}.") from exc
        try:
            Bm25(Bm25Config(k=k, b=b, avg_len=avg_len))
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from exc
        self._language, self._k, self._b, self._avg_len = language, k, b, avg_len
        stopwords = StopwordsSet(languages={Language.Chinese, Language.Japanese})
        self._unspaced = Bm25(Bm25Config(k=_ENDLESS, b=0.0, tokenizer=TokenizerType.Multilingual, stopwords=stopwords))

    def document(self, text: str) -> Weights:
        """How much each term stands for the text."""
        counts = self._count(text)
        length = self._k * (1 - self._b + self._b * sum(counts.values()) / self._avg_len)
        return Weights(list(counts), [count * (self._k + 1) / (count + length) for count in counts.values()])

    def query(self, text: str) -> Weights:
        """1 for each term."""
        counts = self._count(text)
        return Weights(list(counts), [1.0] * len(counts))

    def __reduce__(self) -> tuple[type[Self], tuple[str, float, float, float]]:
        return type(self), (self._language, self._k, self._b, self._avg_len)

    def _count(self, text: str) -> Counter[int]:
        counts = _terms(self._spaced, _UNSPACED.sub(" ", text))
        if unspaced := _UNSPACED.findall(text):
            hint = [_JAPANESE] if self._language in ("japanese", "ja") else []
            counts.update(_terms(self._unspaced, "\n".join(hint + unspaced)))
        return counts


def _terms(model: Bm25, text: str) -> Counter[int]:
    vector = model.embed_document(text)
    return Counter({index: round(count) for index, count in zip(vector.indices, vector.values, strict=True)})
