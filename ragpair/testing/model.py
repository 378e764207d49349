"""The model that a `FakeServer` pretends to run: words in place of weights. Pure, and the same everywhere.

A token is a word or a Chinese character; two special ones stand around a text, three around a pair. A vector is the
sum of hashed words, parts of words and pairs of Chinese characters, so that texts that share them are near; an
instruction before "Query:" moves it a little. A pair is as relevant as the document holds of the query.
"""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

TEXT_SPECIALS = 2
PAIR_SPECIALS = 3

_CHINESE = r"\u3400-\u9fff"
_TOKEN = re.compile(rf"[{_CHINESE}]|[^\s{_CHINESE}]+")
_WORD = re.compile(rf"[{_CHINESE}]+|[^\W{_CHINESE}]+")
_CHINESE_CHARACTER = re.compile(f"[{_CHINESE}]")
_SIDES = re.compile(r"<Query>:(.*?)<Document>:(.*)<\|im_end\|>", re.DOTALL)


def count_tokens(text: str) -> int:
    """Tokens of a text without special ones."""
    return len(_TOKEN.findall(text))


def token_ids(text: str) -> list[int]:
    """One number a token; equal tokens have equal numbers."""
    return [1000 + zlib.crc32(token.encode("utf-8", "surrogatepass")) % 29000 for token in _TOKEN.findall(text)]


def cut(text: str, tokens: int) -> str:
    """The beginning of a text that has this many tokens."""
    ends = [found.end() for found in _TOKEN.finditer(text)]
    return text if len(ends) <= tokens else text[: ends[tokens - 1] if tokens > 0 else 0]


def embed(text: str, dims: int) -> NDArray[np.float32]:
    """The vector of a text, L2-normalised."""
    instruction, _, asked = text.rpartition("\nQuery:")  # an instruction must not drown what is asked
    vector = 0.2 * _direction(f"={instruction}", dims)
    vector += 0.05 * _direction(f"={text}", dims)  # different texts have different vectors
    for word, count in _words(asked).items():
        for feature, weight in _parts(word):
            vector += count * weight * _direction(feature, dims)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def logit(query: str, document: str) -> float:
    """Relevance of a document, -4 (nothing shared) to 4 (holds all of the query)."""
    wanted, there = _terms(query), _terms(document)
    return 8.0 * len(wanted & there) / len(wanted) - 4.0 if wanted else -4.0


def answer_logit(prompt: str) -> float:
    """Log-odds of "yes" after a Qwen3-Reranker prompt; -4 for a text that is none."""
    sides = _SIDES.search(prompt)
    return logit(sides[1], sides[2]) if sides else -4.0


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + math.exp(-x))


@lru_cache(maxsize=16384)
def _direction(feature: str, dims: int) -> NDArray[np.float64]:
    """Directions of different features are nearly at right angles, the more so the more dimensions there are."""
    noise = hashlib.shake_128(feature.encode("utf-8", "surrogatepass")).digest(dims)
    return np.frombuffer(noise, np.uint8) / 127.5 - 1.0


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))


def _parts(word: str) -> Iterator[tuple[str, float]]:
    if _CHINESE_CHARACTER.match(word):
        yield from ((word[i : i + 2], 1.0) for i in range(max(1, len(word) - 1)))
    else:
        yield word, 1.0
        yield from ((f"#{word[i : i + 4]}", 0.3) for i in range(len(word) - 3))


def _terms(text: str) -> set[str]:
    return {feature for word in _words(text) for feature, weight in _parts(word) if weight == 1.0}
