"""The help desk: FAQ and policy passages, labelled questions and labelled follow-ups, in English and in Chinese.

The FAQ and most questions are those of the package (`ragpair.demo.helpdesk`). Policy passages, dates, follow-ups and
more questions that nothing here answers lie in cookbook/data/helpdesk.

    from cookbook_data import helpdesk

    desk = helpdesk.load("en")
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ragpair.demo.helpdesk import load as load_faq

from .shop import read_lines

FOLDER = Path(__file__).parents[1] / "data" / "helpdesk"

Language = Literal["en", "zh"]

# Of the package's questions without an answer, those about the shop; the others are about something else.
ABOUT_THE_SHOP = {
    "Are you hiring for the warehouse? I'd like to send my CV.",
    "who is the CEO of your company and where did he study",
    "你们仓库还招人吗，一个月多少钱",
    "你们老板是哪里人，公司上市了没有",
}


@dataclass(frozen=True)
class Passage:
    """What is searched in: an entry of the FAQ, or a section of a policy.

    Attributes:
        id: Such as "en-021" (FAQ) or "en-p01" (policy).
        kind: "faq" or "policy".
        category: One of twelve: orders, shipping, returns, ...
        language: "en" or "zh".
        updated: The day of its last change, as 2026-03-14.
        title: The FAQ's question, or the heading of the section.
        body: What it says.
    """

    id: str
    kind: str
    category: str
    language: str
    updated: str
    title: str
    body: str

    @property
    def text(self) -> str:
        """What is embedded, reranked and read by the chat model."""
        return f"{self.title}\n{self.body}"


@dataclass(frozen=True)
class Question:
    """What a customer asks.

    Attributes:
        id: Such as "q001".
        text: The question.
        right: Ids of the passages that answer it, the FAQ's own first; empty if none does.
        kind: "answerable"; "near" is about the shop, but answered nowhere; "off" is about something else.
    """

    id: str
    text: str
    right: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class FollowUp:
    """What a customer asks next.

    Attributes:
        id: Such as "f01".
        history: Question and answer of each turn before, oldest first.
        text: The follow-up as it was typed.
        standalone: The same, written so that it needs no history.
        right: Ids of the passages that answer it.
    """

    id: str
    history: tuple[tuple[str, str], ...]
    text: str
    standalone: str
    right: tuple[str, ...]


@dataclass(frozen=True)
class Desk:
    """All of one language."""

    passages: list[Passage]
    questions: list[Question]
    followups: list[FollowUp]


def load(language: Language) -> Desk:
    """The help desk in one language."""
    updated = json.loads((FOLDER / "updated.json").read_text(encoding="utf-8"))
    entries, asked = load_faq(language)
    sections = _rows(f"policies_{language}")
    faq = [Passage(e.id, "faq", e.category, language, updated[e.id], e.question, e.answer) for e in entries]
    policies = [
        Passage(row["id"], "policy", row["category"], language, updated[row["id"]], row["title"], row["text"])
        for row in sections
    ]
    also = {entry: row["id"] for row in sections for entry in row["also_answers"]}
    labelled: list[tuple[str, tuple[str, ...], str]] = []
    for question in asked:
        right = tuple(one for one in (question.answer, also.get(question.answer or "")) if one)
        unanswered = "near" if question.text in ABOUT_THE_SHOP else "off"
        labelled.append((question.text, right, "answerable" if right else unanswered))
    labelled += [(row["text"], (), row["kind"]) for row in _rows(f"unanswered_{language}")]
    questions = [Question(f"q{n:03d}", *one) for n, one in enumerate(labelled, 1)]
    followups = [
        FollowUp(f"f{n:02d}", tuple(map(tuple, row["history"])), row["text"], row["standalone"], tuple(row["right"]))
        for n, row in enumerate(_rows(f"followups_{language}"), 1)
    ]
    return Desk(faq + policies, questions, followups)


def _rows(name: str) -> list[dict[str, Any]]:
    return read_lines(FOLDER / f"{name}.jsonl")
