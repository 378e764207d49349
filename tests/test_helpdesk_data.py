"""The help-desk demo data: sizes, labels and language."""

import json
from collections import Counter
from importlib.resources import files
from typing import Any

import pytest

CATEGORIES = {
    "account",
    "invoices",
    "orders",
    "payment",
    "pickup",
    "privacy",
    "products",
    "promotions",
    "refunds",
    "returns",
    "shipping",
    "warranty",
}
FIELDS = {"faq": {"kind", "id", "category", "question", "answer"}, "query": {"kind", "text", "answer"}}

Rows = list[dict[str, Any]]


def load(lang: str) -> Rows:
    text = (files("ragpair") / "data" / f"helpdesk_{lang}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def of_kind(rows: Rows, kind: str) -> Rows:
    return [row for row in rows if row["kind"] == kind]


def cjk_share(text: str) -> float:
    """The share of CJK ideographs among the letters and digits of a text."""
    letters = [char for char in text if char.isalnum()]
    return sum("\u4e00" <= char <= "\u9fff" for char in letters) / max(len(letters), 1)


@pytest.fixture(params=["en", "zh"])
def lang(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rows(lang: str) -> Rows:
    return load(lang)


def test_every_row_has_exactly_the_fields_of_its_kind(rows: Rows) -> None:
    for row in rows:
        assert set(row) == FIELDS[row["kind"]], row


def test_sizes(rows: Rows) -> None:
    queries = of_kind(rows, "query")
    assert len(of_kind(rows, "faq")) >= 60
    assert sum(query["answer"] is not None for query in queries) >= 60


def test_off_topic_questions_exist(rows: Rows) -> None:
    assert sum(query["answer"] is None for query in of_kind(rows, "query")) >= 12


def test_ids_are_unique_and_carry_the_language(rows: Rows, lang: str) -> None:
    ids = [faq["id"] for faq in of_kind(rows, "faq")]
    assert len(set(ids)) == len(ids)
    assert all(faq_id.startswith(f"{lang}-") for faq_id in ids)


def test_every_category_has_several_entries(rows: Rows) -> None:
    counts = Counter(faq["category"] for faq in of_kind(rows, "faq"))
    assert set(counts) == CATEGORIES
    assert min(counts.values()) >= 3


def test_every_answer_is_an_entry_or_null(rows: Rows) -> None:
    ids = {faq["id"] for faq in of_kind(rows, "faq")}
    for query in of_kind(rows, "query"):
        assert query["answer"] is None or query["answer"] in ids, query


def test_every_entry_is_asked_for(rows: Rows) -> None:
    asked = {query["answer"] for query in of_kind(rows, "query")}
    assert {faq["id"] for faq in of_kind(rows, "faq")} <= asked


def test_questions_do_not_come_in_the_order_of_the_entries(rows: Rows) -> None:
    answers = [query["answer"] for query in of_kind(rows, "query") if query["answer"]]
    assert answers != sorted(answers)


def test_nothing_is_blank_or_padded(rows: Rows) -> None:
    for row in rows:
        for field, value in row.items():
            if value is None:
                assert (row["kind"], field) == ("query", "answer")
            else:
                assert value, row
                assert value == value.strip(), row


def test_no_query_is_an_entrys_own_question(rows: Rows) -> None:
    headings = {faq["question"].casefold() for faq in of_kind(rows, "faq")}
    assert not [query["text"] for query in of_kind(rows, "query") if query["text"].casefold() in headings]


def test_no_text_comes_twice(rows: Rows) -> None:
    texts = Counter(query["text"].casefold() for query in of_kind(rows, "query"))
    texts.update(faq[field].casefold() for faq in of_kind(rows, "faq") for field in ("question", "answer"))
    assert [text for text, count in texts.items() if count > 1] == []


def test_the_chinese_file_is_chinese_and_the_english_one_is_not() -> None:
    def texts(rows: Rows) -> list[str]:
        return [row[field] for row in rows for field in ("question", "answer") if row["kind"] == "faq"] + [
            row["text"] for row in rows if row["kind"] == "query"
        ]

    chinese = texts(load("zh"))
    assert cjk_share("".join(chinese)) > 0.85
    assert min(cjk_share(text) for text in chinese) > 0.4
    assert all(cjk_share(text) == 0 for text in texts(load("en")))
