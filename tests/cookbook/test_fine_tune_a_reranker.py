"""The fine-tuned reranker: its record, what is measured beside it, and the set that it learnt from."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest

from .conftest import Executed
from .execution import COOKBOOK, script

FINE_TUNE = COOKBOOK / "fine_tune"


def functions(source: str) -> dict[str, str]:
    """Each function of a source, as it is written."""
    return {
        node.name: ast.get_source_segment(source, node) or ""
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
    }


def test_numbers_that_a_broken_prompt_of_recall_or_a_reranker_of_other_candidates_would_miss(
    executed: Executed, labelled: Path
) -> None:
    headline = executed("fine_tune_a_reranker")
    assert headline["dense_bank"] == pytest.approx(0.816, abs=0.01)
    assert headline["embedded_bank"] == pytest.approx(0.815, abs=0.01)
    assert headline["dense_help_desk"] == pytest.approx(0.749, abs=0.015)
    assert headline["embedded_help_desk"] == pytest.approx(0.761, abs=0.015)
    assert headline["questions_indexed_bank"] == pytest.approx(0.954, abs=0.01)
    assert headline["questions_indexed_later_entries"] == pytest.approx(0.871, abs=0.02)


def test_the_record_shows_a_gain_in_domain_and_losses_out_of_domain_or_its_sets_were_mixed_up() -> None:
    run = json.loads((FINE_TUNE / "run.json").read_text(encoding="utf-8"))["ndcg@10"]
    mean = {name: {task: float(np.mean(values)) for task, values in row.items()} for name, row in run.items()}
    change = {task: mean["fine-tuned"][task] - mean["dense"][task] for task in mean["dense"]}
    assert 0.01 < change["bank, trained entries"] < 0.06
    assert change["bank, entries added later"] < -0.08
    assert change["help desk"] < -0.3
    assert change["electronics"] < -0.05
    indexed = mean["dense, training questions indexed"]
    assert indexed["bank, trained entries"] > mean["fine-tuned"]["bank, trained entries"] + 0.05
    assert indexed["bank, entries added later"] < mean["dense"]["bank, entries added later"] - 0.15


def test_the_notebook_shows_the_functions_that_the_record_was_made_with() -> None:
    trained = functions((FINE_TUNE / "train.py").read_text(encoding="utf-8"))
    cells = [cell.source for cell in script("fine_tune_a_reranker").cells if cell.cell_type == "code"]
    shown = {name: text for source in cells for name, text in functions(source).items()}
    assert {name: trained[name] for name in ("hard_negatives", "fine_tune")} == {
        name: shown[name] for name in ("hard_negatives", "fine_tune")
    }


def test_the_record_is_of_the_settings_in_the_script() -> None:
    run = json.loads((FINE_TUNE / "run.json").read_text(encoding="utf-8"))
    source = (FINE_TUNE / "train.py").read_text(encoding="utf-8")
    [settings] = [
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "SETTINGS"
    ]
    assert isinstance(settings, ast.Dict)
    for key, value in zip(settings.keys, settings.values, strict=True):
        assert isinstance(key, ast.Constant)
        if isinstance(value, ast.Constant):
            assert run["settings"][key.value] == value.value


def test_the_served_model_scores_as_it_was_trained_or_its_activation_was_saved_wrongly() -> None:
    run = json.loads((FINE_TUNE / "run.json").read_text(encoding="utf-8"))
    assert run["served"]["score_kind"] == "probability"
    assert run["served"]["largest_difference"] < 1e-4
    assert run["served"]["help desk, NDCG@10"] == pytest.approx(
        np.mean(run["ndcg@10"]["fine-tuned"]["help desk"]), abs=1e-3
    )


def test_banking77_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(COOKBOOK))
    from cookbook_data import banking, download

    monkeypatch.delenv("RAGPAIR_DATA", raising=False)
    with pytest.raises(
        download.DataError, match=r"names; RAGPAIR_DATA is not set\..*PolyAI-LDN/task-specific-datasets.*CC BY"
    ):
        banking.load()
    monkeypatch.setenv("RAGPAIR_DATA", str(tmp_path))
    with pytest.raises(download.DataError, match=re.escape(f"names; RAGPAIR_DATA is {str(tmp_path)!r}. Get ")):
        banking.load()
    (tmp_path / "banking77").mkdir()
    with pytest.raises(download.DataError, match=r"no train\.csv in .*banking77.*PolyAI"):
        banking.load()


def test_banking77_is_read_as_polyai_publishes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(COOKBOOK))
    from cookbook_data import banking

    monkeypatch.setenv("RAGPAIR_DATA", str(tmp_path))
    folder = tmp_path / "banking77"
    folder.mkdir()
    (folder / "train.csv").write_text('text,category\n"Where, is it?\n",card_arrival\n', encoding="utf-8")
    (folder / "test.jsonl").write_text('{"text": "Still not here", "intent": "card_arrival"}\n', encoding="utf-8")
    data = banking.load()
    assert data.train == [banking.Question("Where, is it?", "card_arrival")]
    assert data.test == [banking.Question("Still not here", "card_arrival")]
    assert banking.title("card_arrival") == "Card arrival"


def test_nothing_that_is_measured_was_trained_on(monkeypatch: pytest.MonkeyPatch, labelled: Path) -> None:
    monkeypatch.syspath_prepend(str(COOKBOOK))
    from fine_tune import sets

    bank = sets.bank()
    trained = {question.casefold() for question, _ in [*bank.train, *bank.dev, *bank.later]}
    for task in (bank.test_known, bank.test_new):
        assert not trained & {question.casefold() for question in task.queries.values()}
    assert not {question for question, _ in bank.train} & {question for question, _ in bank.dev}
    assert {entry for _, entry in bank.train} == set(bank.known)
    assert not {next(iter(grades)) for grades in bank.test_new.qrels.values()} & set(bank.known)
    assert len(bank.test_new.documents) == len(bank.test_known.documents) == 77
