"""A table of questions and answers, as a spreadsheet saves it.

from cookbook_data.pairs import read_pairs

documents, questions, qrels, off_topic = read_pairs("data/pairs/helpdesk_en.csv")
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# What may stand in the column of off-topic questions, as people and spreadsheets write it.
YES = {"yes", "y", "true", "1", "1.0", "x", "ja", "j", "wahr", "是"}
NO = {"", "no", "n", "false", "0", "0.0", "-", "nein", "falsch", "否"}


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

    Texts that differ only in white space are one question, or one document.

    Args:
        path: The file.
        question_column: Name of the column of what was asked.
        answer_column: Name of the column of what answers it.
        off_topic_column: Name of the column that says "yes" where nothing answers, and "no" or nothing elsewhere; the
            table may be without it.
        encoding: Of the file; the default reads UTF-8 with or without a byte order mark.

    Raises:
        ValueError: The encoding, a quote or a column is wrong, rows cannot be used (they are named), fewer than 20
            questions have an answer, or there are fewer than 10 different answers.
    """
    text = _text(path, encoding)
    header = io.StringIO(text, newline="").readline(10_000)
    columns = {mark: [name.strip() for name in next(csv.reader([header], delimiter=mark), [])] for mark in ",;\t|"}
    needed = [question_column, answer_column]
    mark = max(columns, key=lambda mark: (len({*needed} & {*columns[mark]}), len(columns[mark])))
    names = columns[mark]
    if missing := [name for name in needed if name not in names]:
        raise ValueError(
            f"{path} has no column {' and no column '.join(map(repr, missing))}. "
            f"Set QUESTION and ANSWER to its columns; the first line has: {', '.join(map(repr, names))[:200]}"
        )
    if twice := [name for name in (*needed, off_topic_column) if names.count(name) > 1]:
        raise ValueError(
            f"{path} has more than one column {' and more than one column '.join(map(repr, twice))}. "
            "Rename those that should not be read."
        )
    asked: dict[str, str] = {}  # the id of each question, by its text on one line
    answered: dict[str, str] = {}  # the same of documents
    documents: dict[str, str] = {}
    questions: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    off_topic: dict[str, str] = {}
    wrong: list[str] = []
    rows = [(number, cells) for number, cells in _rows(path, text, mark) if number > 1 and any(map(str.strip, cells))]
    # Blank cells beyond the header say nothing if each row has them; else a text may have pushed them there.
    width = max(len(names), min((len(cells) for _, cells in rows), default=0))
    for number, cells in rows:
        row = dict(zip(names, (cell.strip() for cell in cells), strict=False))
        question, answer, cell = row.get(question_column, ""), row.get(answer_column, ""), row.get(off_topic_column, "")
        off = cell.casefold() in YES
        id = asked.setdefault(" ".join(question.split()), f"row {number}")
        if len(cells) > width or any(cell.strip() for cell in cells[len(names) :]):
            wrong.append(
                f"row {number} has {len(cells)} cells, and the header {len(names)}: "
                f"a text with {mark!r} in it needs quotes, and blank cells at the end have to go"
            )
        elif not question:
            wrong.append(f"row {number} has no {question_column}")
        elif not off and cell.casefold() not in NO:
            wrong.append(f"row {number} has {cell[:20]!r} in the column {off_topic_column}; write yes or no")
        elif off and answer:
            wrong.append(
                f"row {number} has {cell!r} in the column {off_topic_column}, and an {answer_column}; "
                "it can only be one: leave one of the two empty"
            )
        elif not off and not answer:
            wrong.append(
                f"row {number} has no {answer_column}; "
                f"if it should have none, write yes in the column {off_topic_column}"
            )
        elif id in (questions if off else off_topic):
            wrong.append(f"row {number} asks what {id} asks, and only one of the two is off topic")
        elif off:
            off_topic.setdefault(id, question)
        else:
            document = answered.setdefault(" ".join(answer.split()), f"row {number}")
            documents.setdefault(document, answer)
            questions.setdefault(id, question)
            qrels.setdefault(id, {})[document] = 1  # a question with two answers: either is right
    if wrong:
        raise ValueError(f"{path}: " + "; ".join(wrong[:10]) + (f"; and {len(wrong) - 10} more" if wrong[10:] else ""))
    if len(questions) < 20:
        raise ValueError(
            f"{path} has {len(questions)} questions with an answer; with fewer than 20 nothing can be said."
        )
    if len(documents) < 10:
        raise ValueError(
            f"{path} has only {len(documents)} different answers in the column {answer_column!r}; with fewer than 10 "
            "there is nothing to search in. Is ANSWER the right column?"
        )
    return Pairs(documents, questions, qrels, off_topic)


def _text(path: str | Path, encoding: str) -> str:
    """What the file says; where it cannot be read, the error shows how other encodings read that place."""
    data = Path(path).read_bytes()
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):  # xlsx and ods are zip files; xls
        raise ValueError(f"{path} is a workbook, not a CSV. Save it as CSV UTF-8.")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as exc:
        bad, at = exc.object, exc.start  # without the byte order mark
    read = {}
    for name in ("utf-16",) if bad.startswith((b"\xff\xfe", b"\xfe\xff")) else ("utf-8-sig", "gb18030", "cp1252"):
        try:
            text = bad.decode(name)
        except UnicodeDecodeError:
            continue  # not that one
        here = len(bad[:at].decode(name, "ignore"))
        read[name] = " ".join(text[max(0, here - 20) : here + 20].split())
    line = bad.count(b"\n", 0, at) + 1
    cure = f"Set ENCODING to the one that reads well: {read}; or save it" if read else "Save it"
    raise ValueError(f"{path}, line {line} is not {encoding}. {cure} as CSV UTF-8.")


def _rows(path: str | Path, text: str, mark: str) -> Iterator[tuple[int, list[str]]]:
    """The rows and their numbers, as a spreadsheet counts: the header is row 1."""
    number = 0
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True), 1):
            yield number, cells
    except csv.Error as exc:
        raise ValueError(
            f"{path} cannot be read after row {number}: {exc}. Is a quote not closed in row {number + 1}? "
            'A text that begins with a quote needs quotes around it, and "" for each quote in it.'
        ) from None
