"""Evaluation on one's own pairs: the numbers of the help desk, and the tables that users bring."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import Executed
from .execution import COOKBOOK, execute, script, stored

HEADER = "question,answer,off_topic\n"
ENOUGH = "".join(f"How about {i}?,It is {i}.,\n" for i in range(20))


@pytest.fixture
def read_pairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """What is made of a table."""
    monkeypatch.syspath_prepend(str(COOKBOOK))
    from cookbook_data import pairs

    def read(content: str | bytes, encoding: str = "utf-8-sig", **columns: str) -> Any:
        path = tmp_path / "pairs.csv"
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return pairs.read_pairs(str(path), encoding=encoding, **columns)

    return read


def test_english_numbers_that_a_prefix_on_minilm_or_another_order_would_miss(executed: Executed) -> None:
    headline = executed("evaluate_your_own")
    assert headline["recall_ndcg"] == pytest.approx(0.612, abs=0.01)
    assert headline["reranked_ndcg"] == pytest.approx(0.642, abs=0.015)
    assert headline["recall_hit_1"] == pytest.approx(0.410, abs=0.02)
    assert headline["recall_at_fetch_k"] >= 0.96
    assert headline["hit_at_top_n"] == pytest.approx(0.949, abs=0.03)
    assert headline["hit_at_5_reranked"] == pytest.approx(0.705, abs=0.03)
    assert 0.02 <= headline["differences_below_mean_nothing"] <= 0.05
    assert headline["right_answers_kept_on_the_other_half"] >= 0.85


def test_the_introduction_recommends_what_was_printed() -> None:
    notebook = stored("evaluate_your_own")
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    fetch_k, top_n = re.findall(r'"k": (\d+)', printed)[0], re.findall(r"top_n=(\d+)", printed)[0]
    assert "min_score: None" in printed
    assert f"`fetch_k = {fetch_k}`, `top_n = {top_n}`, and no `min_score`" in notebook.cells[0].source


def test_chinese_without_a_reranker_whose_numbers_a_missing_e5_prefix_would_miss(executed: Executed) -> None:
    headline = executed(
        "evaluate_your_own",
        {
            "EMBED": {"base_url": "local", "model": "multilingual-e5-small"},
            "RERANK": None,
            "CSV": "data/pairs/helpdesk_zh.csv",
        },
    )
    assert headline["recall_ndcg"] == pytest.approx(0.629, abs=0.02)  # 0.554 with questions embedded as documents
    assert headline["reranked_ndcg"] == headline["recall_ndcg"]


def numbered(count: int, say: Callable[[int], str] = "It is {}.".format) -> str:
    """Rows of questions that have nothing in common with their answers."""
    return "".join(f"What of {hashlib.sha256(bytes([i])).hexdigest()[:6]}?,{say(i)},no\n" for i in range(count))


def printed(notebook: Any) -> str:
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


def test_weak_recall_is_said_of_a_sample_and_the_reranker_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGPAIR_RERANK_BASE_URL", "local")
    table = tmp_path / "pairs.csv"
    table.write_text(HEADER + numbered(80) + "Who are you?,,TRUE\n", encoding="utf-8")
    notebook, _ = execute("evaluate_your_own", {"CSV": str(table), "SAMPLE": 30, "RERANK": {"scores": "raw"}})
    text = printed(notebook)
    assert "30 questions, 80 documents, 1 off-topic questions" in text
    assert re.search(r"For \d\d\.\d% of the questions, no answer is among the first 50 documents\.", text)
    assert "RagpairRerank(scores='raw', top_n=" in text


def test_a_table_without_wrong_candidates_is_evaluated_to_its_end(tmp_path: Path) -> None:
    things = "kettle carpet invoice tractor violin harbour mustard ladder pigeon saddle bottle curtain engine garden"
    table = tmp_path / "pairs.csv"
    table.write_text(
        HEADER
        + "".join(f"{asks} the {a}?,It is the {a}.,\n" for a in things.split() for asks in ("Is it", "Where is")),
        encoding="utf-8",
    )
    notebook, headline = execute("evaluate_your_own", {"CSV": str(table)})
    assert headline["recall_hit_1"] == 1
    assert "No line can be drawn. All" in printed(notebook)


def test_an_answer_that_is_too_long_is_named_by_its_row(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text(
        HEADER + numbered(80, lambda i: f"It is {i}." + " and so on" * (1000 if i == 75 else 0)), encoding="utf-8"
    )
    with pytest.raises(Exception, match=r"The answer in row 77 is too long: text 11 has .* takes"):
        execute("evaluate_your_own", {"CSV": str(table)})


@pytest.mark.parametrize(
    ("embed", "message"),
    [
        ({"base_url": "local"}, r"The question in row 82 is too long: text 0 has \d+ tokens"),
        (
            {"base_url": "local", "too_long": "truncate"},
            r"The question in row 82 together with the answer in row \d+ is too long: the query with document \d+ has",
        ),
    ],
)
def test_a_question_that_is_too_long_is_named_by_its_row(tmp_path: Path, embed: dict[str, str], message: str) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text(HEADER + numbered(80) + f"What of it{' and so on' * 1000}?,It is so.,\n", encoding="utf-8")
    with pytest.raises(Exception, match=message):
        execute("evaluate_your_own", {"CSV": str(table), "EMBED": embed})


def test_no_document_is_right_in_both_halves_however_questions_share_them() -> None:
    [cell] = [cell.source for cell in script("evaluate_your_own").cells if "half_a =" in cell.source]
    qrels = {
        f"{i} {one} {other}": {f"row {i} {one}": 1, f"row {i} {other}": 1}
        for i in range(40)
        for one, other in ("ac", "bd", "cd", "aa")  # the third joins the two before it
    }
    found: dict[str, Any] = {"np": np, "qrels": qrels, "questions": dict.fromkeys(qrels, "?"), "off_topic": {"o": "?"}}
    exec(cell, found)
    in_a, in_b = ({row for id in found[half] for row in qrels.get(id, {})} for half in ("half_a", "half_b"))
    assert not in_a & in_b
    assert sorted([*found["half_a"], *found["half_b"]]) == sorted([*qrels, "o"])
    assert {len(in_a), len(in_b)} <= {76, 80, 84}, "halves of 40 times 4 documents"


def test_the_tables_are_the_help_desks_of_the_package(read_pairs: Callable[..., Any]) -> None:
    from ragpair.demo import helpdesk

    for language in ("en", "zh"):
        documents, questions, qrels, off_topic = read_pairs(
            (COOKBOOK / f"data/pairs/helpdesk_{language}.csv").read_bytes()
        )
        entries, asked = helpdesk.load(language)  # type: ignore[arg-type]
        answers = {entry.id: entry.answer for entry in entries}
        assert set(documents.values()) == set(answers.values())
        found = {question: documents[document] for id, question in questions.items() for document in qrels[id]}
        assert found == {question.text: answers[question.answer] for question in asked if question.answer}
        assert set(off_topic.values()) == {question.text for question in asked if not question.answer}


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_header_tells_the_separator_and_a_byte_order_mark_is_no_part_of_it(
    read_pairs: Callable[..., Any], mark: str
) -> None:
    documents, questions, _, _ = read_pairs("\ufeff" + (HEADER + ENOUGH).replace(",", mark))
    assert questions["row 2"] == "How about 0?"
    assert documents["row 2"] == "It is 0."


def test_several_questions_of_one_answer_are_one_document(read_pairs: Callable[..., Any]) -> None:
    documents, _, qrels, _ = read_pairs(HEADER + ENOUGH + '"And 0?","It  is\n0.",\n')
    assert len(documents) == 20
    assert qrels["row 22"] == {"row 2": 1}


def test_a_question_with_two_answers_has_two_right_documents(read_pairs: Callable[..., Any]) -> None:
    _, questions, qrels, _ = read_pairs(HEADER + ENOUGH + "How about 0?,It is nothing.,\n")
    assert len(questions) == 20
    assert qrels["row 2"] == {"row 2": 1, "row 22": 1}


def test_other_columns_and_blank_rows_are_passed_over(read_pairs: Callable[..., Any]) -> None:
    table = "id,answer,question\n" + "".join(f"{i},It is {i}.,How about {i}?\n" for i in range(20)) + ",,\n\n"
    documents, questions, _, off_topic = read_pairs(table)
    assert (len(documents), len(questions), off_topic) == (20, 20, {})


def test_blank_cells_beyond_the_header_are_passed_over_if_all_rows_have_them(read_pairs: Callable[..., Any]) -> None:
    table = "question,answer\n" + "".join(f"How about {i}?,It is {i}.,, \n" for i in range(20))
    assert len(read_pairs(table).questions) == 20
    with pytest.raises(
        ValueError, match=r"csv: row 22 has 4 cells, and the header 2: a text with ',' in it needs quotes"
    ):
        read_pairs(table + "How?,It is, as it is.,\n")
    with pytest.raises(
        ValueError, match=r"csv: row 22 has 5 cells, and the header 2.* blank cells at the end have to go$"
    ):
        read_pairs(table + "Well, how?,,,\n")


@pytest.mark.parametrize("name", ["question", "answer", "off_topic"])
def test_a_column_that_stands_twice_is_refused(read_pairs: Callable[..., Any], name: str) -> None:
    with pytest.raises(ValueError, match=rf"pairs\.csv has more than one column '{name}'\. Rename those"):
        read_pairs(HEADER.replace("\n", f",{name} \n") + ENOUGH.replace("\n", ",\n"))
    assert read_pairs(HEADER.replace("\n", ",note,note,,\n") + ENOUGH.replace("\n", ",,,,\n")).off_topic == {}


def test_off_topic_questions_have_no_document(read_pairs: Callable[..., Any]) -> None:
    documents, _, _, off_topic = read_pairs(HEADER + ENOUGH + "Who is the queen?,,yes\n")
    assert off_topic == {"row 22": "Who is the queen?"}
    assert len(documents) == 20


@pytest.mark.parametrize("word", ["yes", "Y", "TRUE", "1.0", "x", "wahr", "是"])
def test_people_say_yes_in_many_ways(read_pairs: Callable[..., Any], word: str) -> None:
    assert read_pairs(HEADER + ENOUGH + f"Who?,,{word}\n").off_topic == {"row 22": "Who?"}


@pytest.mark.parametrize("word", ["no", "N", "FALSE", "0", "nein", "Falsch", "否", " "])
def test_and_no_with_an_answer_or_without_one(read_pairs: Callable[..., Any], word: str) -> None:
    found = read_pairs(HEADER + ENOUGH + f"Who?,I.,{word}\n")
    assert (found.questions["row 22"], found.off_topic) == ("Who?", {})
    with pytest.raises(ValueError, match="row 22 has no answer"):
        read_pairs(HEADER + ENOUGH + f"Who?,,{word}\n")


def test_a_question_that_stands_twice_is_one_question(read_pairs: Callable[..., Any]) -> None:
    found = read_pairs(HEADER + ENOUGH + "Who?,,yes\nWho?,,yes\nHow  about 0?,It is 0.,\n")
    assert len(found.questions) == 20
    assert found.off_topic == {"row 22": "Who?"}


@pytest.mark.parametrize("rows", ["Who?,I.,\nWho?,,yes\n", "Who?,,yes\nWho?,I.,\n"])
def test_a_question_is_answered_or_off_topic(read_pairs: Callable[..., Any], rows: str) -> None:
    with pytest.raises(ValueError, match="row 23 asks what row 22 asks, and only one of the two is off topic"):
        read_pairs(HEADER + ENOUGH + rows)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",It is.,", "row 22 has no question"),
        ("How?,,", "row 22 has no answer; if it should have none, write yes in the column off_topic"),
        ("How?, ,", "row 22 has no answer"),
        ("How?,It is.,yes", "row 22 has 'yes' in the column off_topic, and an answer; it can only be one"),
        ("How?,It is.,nope", "row 22 has 'nope' in the column off_topic; write yes or no"),
        ("How?,,nope", "row 22 has 'nope' in the column off_topic; write yes or no"),
        ("How?,It is, as it is.,", "row 22 has 4 cells, and the header 3: a text with ',' in it needs quotes"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(read_pairs: Callable[..., Any], row: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        read_pairs(HEADER + ENOUGH + row + "\n")


def test_many_such_rows_are_counted(read_pairs: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"row 31 has no answer.*; and 5 more"):
        read_pairs(HEADER + ENOUGH + "How?,,\n" * 15)


def test_rows_are_counted_as_a_spreadsheet_does_where_cells_have_several_lines(read_pairs: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="row 3 has no answer"):
        read_pairs(HEADER + 'How?,"It\nis.",\nWhy?,,\n' + ENOUGH)


def test_gbk_is_named_by_how_it_reads_and_read_when_asked_for(read_pairs: Callable[..., Any]) -> None:
    table = ("问题,答案\n" + "".join(f"第{i}个怎么办？,请看第{i}条。\n" for i in range(20))).encode("gbk")
    with pytest.raises(ValueError, match=r"line 1 is not utf-8-sig\. Set ENCODING .*'gb18030': '问题,答案 第0个"):
        read_pairs(table)
    _, questions, _, _ = read_pairs(table, encoding="gb18030", question_column="问题", answer_column="答案")
    assert questions["row 2"] == "第0个怎么办？"


def test_other_encodings_are_shown_at_the_place_that_failed(read_pairs: Callable[..., Any]) -> None:
    table = HEADER + ENOUGH + "How long does it take from Ulm to Köln?,Two days \u2013 three in winter.,\n"
    with pytest.raises(ValueError, match=r"line 22 is not utf-8-sig\. Set ENCODING .*\{'cp1252': '.*to Köln") as caught:
        read_pairs(table.encode("cp1252"))
    assert "gb18030" not in str(caught.value), "that one cannot read the dash"
    assert "save it as CSV UTF-8" in str(caught.value)


def test_of_two_encodings_that_read_the_file_the_difference_is_shown(read_pairs: Callable[..., Any]) -> None:
    table = HEADER + ENOUGH + f"How long does a very long delivery take{' now' * 20}?,In Köln a day.,\n"
    with pytest.raises(ValueError, match=r"'gb18030': '[^']*In K[^'ö]*n a day.*'cp1252': '[^']*In Köln a day"):
        read_pairs(table.encode("cp1252"))


def test_utf_16_is_told_by_its_byte_order_mark_and_read_when_asked_for(read_pairs: Callable[..., Any]) -> None:
    table = (HEADER + ENOUGH).replace(",", "\t").encode("utf-16")
    with pytest.raises(ValueError, match=r"\{'utf-16': 'question"):
        read_pairs(table)
    assert len(read_pairs(table, encoding="utf-16").questions) == 20


def test_utf_8_is_offered_where_something_else_was_asked_for(read_pairs: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"is not ascii\. Set ENCODING .*'utf-8-sig': '[^']*Köln"):
        read_pairs(HEADER + ENOUGH + "Where?,Köln.,\n", encoding="ascii")


def test_a_workbook_is_named(read_pairs: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"is a workbook, not a CSV\. Save it as CSV UTF-8"):
        read_pairs(b"PK\x03\x04\x14\x00\x06\x00" + bytes(range(256)))


@pytest.mark.parametrize("rows", [1, 5000])
@pytest.mark.parametrize("mark", [",", "\t"])
def test_a_quote_that_is_not_closed_swallows_no_rows(read_pairs: Callable[..., Any], mark: str, rows: int) -> None:
    table = HEADER + ENOUGH + '"And?,So.,\n' + "How long is it?,It is as long as it is.,\n" * rows
    with pytest.raises(ValueError, match=r"pairs\.csv cannot be read after row 21.*quote not closed in row 22\?"):
        read_pairs(table.replace(",", mark))


def test_words_in_quotes_at_the_beginning_of_a_text_are_not_taken_for_the_text(read_pairs: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"after row 21.*A text that begins with a quote needs quotes around it"):
        read_pairs(HEADER + ENOUGH + '"SPRING15" does nothing,So.,\n')


def test_line_ends_of_an_old_mac_are_read(read_pairs: Callable[..., Any]) -> None:
    assert len(read_pairs((HEADER + ENOUGH).replace("\n", "\r")).questions) == 20


def test_missing_columns_are_named_beside_those_there_are(read_pairs: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"no column 'question' and no column 'answer'.*has: 'frage', 'antwort'$"):
        read_pairs("frage;antwort\r\n")
    with pytest.raises(ValueError, match=r"no column 'answer'\. Set QUESTION and ANSWER .* has: 'question', 'reply'$"):
        read_pairs("question;reply\r\n")
    with pytest.raises(ValueError, match="no column 'question' and no column 'answer'"):
        read_pairs("")


def test_too_few_different_answers_are_refused(read_pairs: Callable[..., Any]) -> None:
    with pytest.raises(
        ValueError, match=r"has only 2 different answers in the column 'team'.*Is ANSWER the right column"
    ):
        read_pairs("question,team\n" + "".join(f"How {i}?,{i % 2}\n" for i in range(20)), answer_column="team")


def test_too_few_questions_are_refused(read_pairs: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="has 1 questions with an answer"):
        read_pairs(HEADER + "How?,So.,\n")
