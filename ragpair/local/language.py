"""A warning for text that an English-only model was never taught: it gives vectors all the same, and poor ones.

The rule: a text is foreign when more than 30 % of its letters are not Latin (Chinese, Japanese, Korean, Cyrillic,
Arabic, Greek, ...). Digits, punctuation and emoji are no letters. It says nothing of French or Vietnamese.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

from ragpair.local.models import E5, Card

FOREIGN_SHARE = 0.3

_LETTER = re.compile(r"[^\W\d_]")
_NOT_LATIN = re.compile(r"[^\W\d_\u0000-\u02af\u1e00-\u1eff\u2c60-\u2c7f\ua720-\ua7ff\uff21-\uff3a\uff41-\uff5a]")
_warned: dict[str, object] = {}


def is_foreign(text: str) -> bool:
    """Whether more than 30 % of the letters are not Latin."""
    if text.isascii():
        return False
    foreign = len(_NOT_LATIN.findall(text))
    return foreign > 0 and foreign > FOREIGN_SHARE * len(_LETTER.findall(text))


def warn_if_foreign(card: Card, texts: Sequence[str]) -> None:
    """Warn once per process and model when an English-only model gets foreign text."""
    if card.languages != ("en",) or card.name in _warned or not any(map(is_foreign, texts)):
        return
    mine = object()
    if _warned.setdefault(card.name, mine) is mine:  # one thread wins
        warnings.warn(
            f"The model {card.name!r} knows English only, and this text is largely not in Latin letters: its vectors "
            f'and scores will be poor. For embeddings, pass model="{E5}" (pip install "ragpair[local-multilingual]"); '
            "for reranking, use a multilingual model on a server.",
            UserWarning,
            stacklevel=2,
        )
