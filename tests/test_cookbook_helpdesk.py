"""The cookbook's help desk: sizes, labels, dates, and that its texts fit the embedded models."""

import json
import re
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from types import ModuleType

import pytest

from ragpair import Embedder

COOKBOOK = Path(__file__).parents[1] / "cookbook"


@pytest.fixture(params=["en", "zh"])
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def helpdesk(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(COOKBOOK)
    for name in [name for name in sys.modules if name.partition(".")[0] == "cookbook_data"]:
        monkeypatch.delitem(sys.modules, name)
    from cookbook_data import helpdesk

    return helpdesk


def test_sizes(helpdesk: ModuleType, language: str) -> None:
    desk = helpdesk.load(language)
    kinds = Counter(passage.kind for passage in desk.passages)
    assert kinds["faq"] >= 76
    assert 12 <= kinds["policy"] <= 15
    assert 12 <= len(desk.followups) <= 20
    asked = Counter(question.kind for question in desk.questions)
    assert asked["answerable"] >= 78
    assert (asked["near"], asked["off"]) == (18, 14)


def test_ids_are_unique_and_every_label_is_one(helpdesk: ModuleType, language: str) -> None:
    desk = helpdesk.load(language)
    ids = [passage.id for passage in desk.passages]
    assert len(set(ids)) == len(ids)
    labels = [one for asked in (*desk.questions, *desk.followups) for one in asked.right]
    assert set(labels) <= set(ids)
    assert all(followup.right for followup in desk.followups)
    assert all(bool(question.right) == (question.kind == "answerable") for question in desk.questions)


def test_policies_that_answer_a_question_too_count_as_right(helpdesk: ModuleType, language: str) -> None:
    desk = helpdesk.load(language)
    both = [question.right for question in desk.questions if len(question.right) == 2]
    assert len(both) == 3
    assert all(re.fullmatch(rf"{language}-\d\d\d", faq) and f"{language}-p" in policy for faq, policy in both)


def test_every_passage_has_a_day(helpdesk: ModuleType, language: str) -> None:
    for passage in helpdesk.load(language).passages:
        assert date(2024, 1, 1) <= date.fromisoformat(passage.updated) <= date(2026, 10, 31)


def test_no_text_comes_twice_or_is_padded(helpdesk: ModuleType, language: str) -> None:
    desk = helpdesk.load(language)
    texts = [text for passage in desk.passages for text in (passage.title, passage.body)]
    texts += [question.text for question in desk.questions]
    texts += [text for followup in desk.followups for text in (followup.text, followup.standalone)]
    assert all(text and text == text.strip() for text in texts)
    twice = [text for text, count in Counter(text.casefold() for text in texts).items() if count > 1]
    complete = {followup.text for followup in desk.followups if followup.text == followup.standalone}
    headings = {passage.title for passage in desk.passages}
    assert [text for text in twice if text not in {one.casefold() for one in complete | headings}] == []


def test_follow_ups_come_after_one_or_two_turns(helpdesk: ModuleType, language: str) -> None:
    for followup in helpdesk.load(language).followups:
        assert 1 <= len(followup.history) <= 2
        assert all(asked and told for asked, told in followup.history)


def test_passages_fit_the_embedded_models(helpdesk: ModuleType, language: str) -> None:
    model = None if language == "en" else "multilingual-e5-small"
    longest = sorted((passage.text for passage in helpdesk.load(language).passages), key=len)[-3:]
    assert len(Embedder("local", model=model).embed_documents(longest)) == 3  # too long raises


def test_dates_are_of_passages_that_exist(helpdesk: ModuleType) -> None:
    dates = json.loads((helpdesk.FOLDER / "updated.json").read_text(encoding="utf-8"))
    assert set(dates) == {passage.id for lang in ("en", "zh") for passage in helpdesk.load(lang).passages}
