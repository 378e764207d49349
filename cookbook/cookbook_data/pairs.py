"""A table of questions and answers, as a spreadsheet saves it.

from cookbook_data.pairs import read_pairs

documents, questions, qrels, off_topic = read_pairs("data/pairs/helpdesk_en.csv")
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple


class Pairs(NamedTuple):
    """What a table holds; an id is the row in which the text stands first, such as "row 2".

    Attributes:
        documents: Each different answer, by its id.
        questions: Each different question that has an answer, by its id.
        qrels: Of each question the documents that answer it, with grade 1.
        off_topic: Questions that no document answers.
    """

    documents: dict[str, str]
    questions: dict[str, str]
    qrels: dict[str, dict[str, int]]
    off_topic: dict[str, str]


def read_pairs(
    path: str | Path,
    question_column: str = "question",
    answer_column: str = "answer",
    off_topic_column: str = "off_topic",
    encoding: str = "utf-8-sig",
) -> Pairs:
    """Read a CSV; comma, semicolon, tab or | is detected from its header.

    Args:
        path: The file.
        question_column: Name of the column of what was asked.
        answer_column: Name of the column of what answers it. Answers that differ only in white space are one document.
        off_topic_column: Name of the column that says "yes" where nothing answers; the table may be without it.
        encoding: Of the file; the default reads UTF-8 with or without a byte order mark.

    Raises:
        ValueError: The encoding or a column is wrong, rows cannot be used (they are named), or fewer than 20 questions
            have an answer.
    """
    data = Path(path).read_bytes()
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        found = data.splitlines()[line - 1]
        read = {name: found.decode(name, "replace")[:40] for name in ("gb18030", "cp1252", "utf-16")}
        raise ValueError(
            f"{path}, line {line} is not {encoding}. Set ENCODING to the one that reads well: {read}"
        ) from None
    header = text.split("\n", 1)[0]
    columns = [[name.strip() for name in next(csv.reader([header.strip("\r")], delimiter=mark))] for mark in ",;\t|"]
    needed = {question_column, answer_column}
    fitting = [(mark, names) for mark, names in zip(",;\t|", columns, strict=True) if needed <= {*names}]
    if not fitting:
        raise ValueError(
            f"{path} has no columns {question_column!r} and {answer_column!r} in its first line: {header[:80]!r}"
        )
    mark, names = fitting[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    next(rows)
    ids: dict[str, str] = {}  # of documents, by their text without line ends and double blanks
    asked: dict[str, str] = {}
    documents: dict[str, str] = {}
    questions: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    off_topic: dict[str, str] = {}
    wrong: list[str] = []
    for number, cells in enumerate(rows, start=2):  # as a spreadsheet counts
        if not any(cell.strip() for cell in cells):
            continue
        row = dict(zip(names, (cell.strip() for cell in cells), strict=False))
        question, answer, off = row.get(question_column, ""), row.get(answer_column, ""), row.get(off_topic_column, "")
        if len(cells) > len(names):
            wrong.append(
                f"row {number} has {len(cells)} cells, and the header {len(names)}: "
                f"a text with {mark!r} in it needs quotes"
            )
        elif not question:
            wrong.append(f"row {number} has no {question_column}")
        elif not answer and not off:
            wrong.append(
                f"row {number} has no {answer_column}; "
                f"if it should have none, write yes in the column {off_topic_column}"
            )
        elif answer and off.casefold() not in ("", "no", "0", "false"):
            wrong.append(f"row {number} is off topic and has an answer; it can only be one")
        elif not answer:
            off_topic[f"row {number}"] = question
        else:
            document = ids.setdefault(" ".join(answer.split()), f"row {number}")
            documents.setdefault(document, answer)
            id = asked.setdefault(question, f"row {number}")  # a question with two answers: either is right
            questions[id] = question
            qrels.setdefault(id, {})[document] = 1
    if wrong:
        raise ValueError(f"{path}: " + "; ".join(wrong[:10]) + (f"; and {len(wrong) - 10} more" if wrong[10:] else ""))
    if len(questions) < 20:
        raise ValueError(
            f"{path} has {len(questions)} questions with an answer; with fewer than 20 nothing can be said."
        )
    return Pairs(documents, questions, qrels, off_topic)
