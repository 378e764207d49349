"""banking77: 13,083 questions of bank customers, each with one of 77 intents.

It is not checked in. RAGPAIR_DATA names the folder that has it as banking77/train and banking77/test, either as the CSV
files of PolyAI (text, category) or as JSON lines (text, intent). Casanueva et al. 2020, CC BY 4.0.
"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path

from .download import VARIABLE, DataError, provided

SOURCE = (
    "https://github.com/PolyAI-LDN/task-specific-datasets/tree/master/banking_data (train.csv, test.csv; CC BY 4.0)"
)


@dataclass(frozen=True)
class Question:
    """What a customer asked, and which of the 77 intents it has."""

    text: str
    intent: str


@dataclass(frozen=True)
class Banking:
    """The questions as their authors split them."""

    train: list[Question]
    test: list[Question]


def load() -> Banking:
    """The set.

    Raises:
        DataError: It is not there; the message says where to get it.
    """
    return Banking(_questions("train"), _questions("test"))


def title(intent: str) -> str:
    """An intent in words: card_arrival is "Card arrival"."""
    return intent.replace("_", " ").strip().capitalize()


def _questions(part: str) -> list[Question]:
    path = _path(part)
    with path.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines) if path.suffix == ".csv" else map(json.loads, lines)
        return [Question(row["text"].strip(), row.get("intent") or row["category"]) for row in rows]


def _path(part: str) -> Path:
    folder = provided("banking77")
    for path in (folder / f"{part}.csv", folder / f"{part}.jsonl") if folder else ():
        if path.is_file():
            return path
    value = os.environ.get(VARIABLE)
    named = f"{VARIABLE} is {value!r}" if value else f"{VARIABLE} is not set"
    where = f"{folder}" if folder else f"a folder banking77 in the one that {VARIABLE} names; {named}"
    raise DataError(f"banking77 is needed here, and there is no {part}.csv in {where}. Get {SOURCE}, and put it there.")
