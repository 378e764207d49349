"""The help-desk set of the demo, and the two numbers that judge a ranking of it. Pure.

The set was written for this project, with its questions as customers ask them, before any model had seen them. It is
small: differences of a few points mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import orjson

Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the FAQ."""

    id: str
    category: str
    question: str
    answer: str

    @property
    def text(self) -> str:
        """What is indexed and reranked."""
        return f"{self.question}\n{self.answer}"


@dataclass(frozen=True, slots=True)
class Question:
    """What a customer asks, and the id of the entry that answers it; None if none does."""

    text: str
    answer: str | None


def load(language: Language) -> tuple[list[Entry], list[Question]]:
    """The FAQ and the customers' questions."""
    lines = (files("ragpair") / "data" / f"helpdesk_{language}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [orjson.loads(line) for line in lines]
    entries = [
        Entry(row["id"], row["category"], row["question"], row["answer"]) for row in rows if row["kind"] == "faq"
    ]
    return entries, [Question(row["text"], row["answer"]) for row in rows if row["kind"] == "query"]


def hit_at_1(rankings: Sequence[Sequence[str]], wanted: Sequence[str]) -> float:
    """Share of the questions whose first entry is the right one."""
    return sum(ids[:1] == [right] for ids, right in zip(rankings, wanted, strict=True)) / len(wanted)


def ndcg_at_10(rankings: Sequence[Sequence[str]], wanted: Sequence[str]) -> float:
    """NDCG@10 with one right entry a question: 1 / log2(1 + its rank), 0 if it is not among the first ten."""
    gains = (
        1 / math.log2(2 + ids.index(right)) if right in ids[:10] else 0.0
        for ids, right in zip(rankings, wanted, strict=True)
    )
    return sum(gains) / len(wanted)
