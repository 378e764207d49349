"""Lines drawn from judged pairs: on data whose line is known, on data that leaves no choice, and on no data at all."""

from __future__ import annotations

import pickle
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ragpair.calibrate import FEWEST, TRUSTED, Calibration, calibrate
from ragpair.errors import ConfigurationError, InvalidInput, RagpairWarning
from ragpair.scores import ScoreKind, sigmoid

Pairs = tuple[NDArray[np.float64], NDArray[np.int64]]


def drawn(slope: float, intercept: float, *, mean: float = 0.0, spread: float = 3.0, n: int = 40_000) -> Pairs:
    """Logits, and labels that are relevant with sigmoid(slope * logit + intercept)."""
    random = np.random.default_rng(1)
    x = random.normal(mean, spread, n)
    return x, (random.random(n) < sigmoid(slope * x + intercept)).astype(np.int64)


def repeated(scores: list[float], labels: list[int], times: int) -> Pairs:
    return np.tile(np.array(scores), times), np.tile(np.array(labels), times)


class TestProbability:
    @pytest.mark.parametrize(
        ("slope", "intercept", "mean", "spread", "kind"),
        [
            (1.0, 0.0, 0.0, 3.0, "logit"),
            (0.4, -1.5, 2.0, 5.0, "logit"),
            (25.0, -15.0, 0.6, 0.1, "cosine"),
            (1.2, -20.0, 16.0, 3.0, "maxsim"),
        ],
    )
    def test_finds_the_law_that_made_the_labels(
        self, slope: float, intercept: float, mean: float, spread: float, kind: ScoreKind
    ) -> None:
        x, labels = drawn(slope, intercept, mean=mean, spread=spread)
        line = calibrate(x, labels, score_kind=kind)
        assert line.slope == pytest.approx(slope, rel=0.05)
        assert line.intercept == pytest.approx(intercept, rel=0.05, abs=0.05)
        assert line.probability(x) == pytest.approx(sigmoid(slope * x + intercept), abs=0.02)

    def test_probabilities_are_fitted_as_the_logits_they_were(self) -> None:
        x, labels = drawn(0.5, 1.0)
        of_logits, of_probabilities = calibrate(x, labels, score_kind="logit"), calibrate(sigmoid(x), labels)
        assert of_probabilities.slope == pytest.approx(of_logits.slope, rel=1e-6)
        assert of_probabilities.intercept == pytest.approx(of_logits.intercept, rel=1e-6)
        assert of_probabilities.probability(sigmoid(x)) == pytest.approx(of_logits.probability(x))
        assert of_probabilities.threshold == pytest.approx(float(sigmoid(np.array(of_logits.threshold))), abs=1e-3)

    @given(st.lists(st.floats(0, 1), min_size=2, max_size=50))
    def test_never_falls_with_the_score(self, scores: list[float]) -> None:
        line = Calibration(0.5, 1.0, 1.0, 1.7, -0.3, "probability", 100)
        chances = line.probability(sorted(scores))
        assert chances.dtype == np.float64
        assert (np.diff(chances) >= 0).all()
        assert ((chances >= 0) & (chances <= 1)).all()

    def test_stays_finite_where_no_pairs_overlap(self) -> None:
        line = calibrate(*repeated([0.1, 0.2, 0.7, 0.9], [0, 0, 1, 1], 20))
        lowest, low, high, highest = line.probability([0.1, 0.2, 0.7, 0.9])
        assert 0 < lowest < low < 0.1
        assert 0.9 < high < highest < 1

    def test_is_hardly_moved_by_blank_documents_and_rounded_ones(self) -> None:
        x, labels = drawn(0.6, 0.5, n=1000)
        alone = calibrate(sigmoid(x), labels)
        beside = calibrate(np.concatenate([sigmoid(x), np.zeros(100), np.ones(100)]), [*labels, *[0] * 100, *[1] * 100])
        middle = np.linspace(0.05, 0.95, 19)
        assert beside.probability(middle) == pytest.approx(alone.probability(middle), abs=0.03)

    def test_refuses_scores_of_another_scale(self) -> None:
        line = calibrate(*repeated([0.1, 0.9], [0, 1], 40))
        with pytest.raises(InvalidInput, match=r"-3.2 is no probability"):
            line.probability([0.4, -3.2])
        with pytest.raises(InvalidInput, match="nan"):
            line.probability([0.4, float("nan")])


class TestThreshold:
    def test_lies_half_way_where_no_pairs_overlap(self) -> None:
        line = calibrate(*repeated([0.1, 0.2, 0.6, 0.8], [0, 0, 1, 1], 20))
        assert line.threshold == pytest.approx(0.4)
        assert (line.precision, line.recall, line.n) == (1.0, 1.0, 80)

    def test_has_the_best_f1_where_they_do(self) -> None:
        x, labels = drawn(1.0, -1.0, n=3000)
        line = calibrate(x, labels, score_kind="logit")
        f1 = 2 * line.precision * line.recall / (line.precision + line.recall)
        for other in np.unique(x):
            hits = (labels == 1) & (x >= other)
            assert 2 * hits.sum() / ((x >= other).sum() + labels.sum()) <= f1 + 1e-12

    def test_tells_its_precision_and_recall_as_an_adapter_would_see_them(self) -> None:
        x, labels = drawn(1.0, -1.0, n=3000)
        for line in (
            calibrate(x, labels, score_kind="logit"),
            calibrate(x, labels, score_kind="logit", precision=0.8),
        ):
            kept = x >= line.threshold
            assert labels[kept].mean() == pytest.approx(line.precision)
            assert kept[labels == 1].mean() == pytest.approx(line.recall)

    def test_reaches_a_wanted_precision_with_the_best_recall(self) -> None:
        x, labels = drawn(1.0, -1.0, n=3000)
        line = calibrate(x, labels, score_kind="logit", precision=0.9)
        assert line.precision >= 0.9
        assert line.recall > 0.5
        lower = x[x < line.threshold]
        assert all(labels[x >= other].mean() < 0.9 for other in np.unique(lower))

    def test_keeps_a_wanted_share_of_the_relevant_with_the_best_precision(self) -> None:
        x, labels = drawn(1.0, -1.0, n=3000)
        line = calibrate(x, labels, score_kind="logit", recall=0.95)
        assert line.recall >= 0.95
        for threshold in np.unique(x):
            kept = x >= threshold
            if labels[kept].sum() >= 0.95 * labels.sum():
                assert labels[kept].mean() <= line.precision + 1e-12

    def test_one_relevant_document_among_many_wants_recall(self) -> None:
        scores = [0.9, *[0.5] * 4, *[0.4] * 30, *[0.2] * 60]
        labels = [1, *[1, 0, 0, 0], *[1] * 2, *[0] * 28, *[0] * 60]
        assert calibrate(scores, labels).recall == 0.5
        line = calibrate(scores, labels, recall=1)
        assert (line.threshold, line.recall) == (pytest.approx(0.3), 1.0)

    def test_precision_and_recall_cannot_both_be_asked_for(self) -> None:
        x, labels = drawn(1.0, -1.0, n=100)
        with pytest.raises(ConfigurationError, match="cannot both be asked for"):
            calibrate(x, labels, score_kind="logit", precision=0.9, recall=0.9)

    def test_a_precision_out_of_reach_is_refused_with_the_best_one(self) -> None:
        scores, labels = repeated([0.1, 0.5, 0.9, 0.9], [0, 0, 1, 0], 20)
        with pytest.raises(ConfigurationError, match=r"precision=0.8: on these pairs the best is 0.500"):
            calibrate(scores, labels, precision=0.8)

    def test_everything_is_kept_where_nothing_is_worth_dropping(self) -> None:
        scores, labels = repeated([0.3, 0.2, 0.4, 0.9], [1, 0, 1, 1], 20)
        line = calibrate(scores, labels, precision=0.7)
        assert line.threshold == 0.2
        assert (line.precision, line.recall) == (0.75, 1.0)

    def test_equal_scores_fall_on_one_side(self) -> None:
        scores, labels = repeated([0.2, 0.5, 0.5, 0.5, 0.8], [0, 0, 1, 1, 1], 20)
        line = calibrate(scores, labels)
        assert line.threshold == pytest.approx(0.35)
        assert (line.precision, line.recall) == (0.75, 1.0)

    def test_neighbouring_floats_are_told_apart(self) -> None:
        low = 0.5
        high = float(np.nextafter(low, 1))
        line = calibrate(*repeated([low, high], [0, 1], 40))
        assert low < line.threshold <= high

    def test_does_not_depend_on_the_order(self) -> None:
        x, labels = drawn(1.0, 0.0, n=500)
        order = np.random.default_rng(2).permutation(500)
        one, other = (calibrate(x[o], labels[o], score_kind="logit") for o in (slice(None), order))
        assert (one.threshold, one.precision, one.recall) == (other.threshold, other.precision, other.recall)
        assert one.slope == pytest.approx(other.slope)


class TestBadInput:
    SCORES, LABELS = repeated([0.1, 0.2, 0.7, 0.9], [0, 0, 1, 1], 20)

    @pytest.mark.parametrize(
        ("scores", "labels", "message", "index"),
        [
            (SCORES, LABELS[1:], "80 scores and 79 labels", None),
            (SCORES[: FEWEST - 1], LABELS[: FEWEST - 1], "9 judged pairs are too few", None),
            ([], [], "0 judged pairs are too few", None),
            (SCORES, np.ones(80), "All 80 labels are 1", None),
            (SCORES, [False] * 80, "All 80 labels are 0", None),
            (SCORES, [0, 1, 2, *LABELS[3:]], "label at index 2 is 2", 2),
            (SCORES, [0, 0.5, *LABELS[2:]], "label at index 1 is 0.5", 1),
            (SCORES, [0, None, *LABELS[2:]], "label at index 1 is None", 1),
            (SCORES, [0, "yes", *LABELS[2:]], "label at index 1 is 'yes'", 1),
            (
                SCORES,
                np.stack([LABELS, LABELS]),
                r"labels must be one list of 0 and 1, not an array of shape \(2, 80\)",
                None,
            ),
            ([0.1, float("nan"), *SCORES[2:]], LABELS, "score at index 1 is nan", 1),
            ([0.1, None, *SCORES[2:]], LABELS, "score at index 1 is nan", 1),
            ([0.1, float("inf"), *SCORES[2:]], LABELS, "score at index 1 is inf", 1),
            ([*SCORES[:-1], 1.5], LABELS, r"1.5 is no probability.*score_kind='logit'", 79),
            (np.stack([SCORES, SCORES]), LABELS, r"not an array of shape \(2, 80\)", None),
            (["high"] * 80, LABELS, "scores must be numbers", None),
            (0.5, LABELS, "one list of numbers", None),
            (1 - SCORES, LABELS, "do not score higher.*labels swapped", None),
            (np.full(80, 0.3), LABELS, "do not score higher", None),
        ],
    )
    def test_is_refused_with_the_reason(self, scores: Any, labels: Any, message: str, index: int | None) -> None:
        with pytest.raises(InvalidInput, match=message) as caught:
            calibrate(scores, labels)
        assert caught.value.index == index

    @pytest.mark.parametrize("recall", [0.0, -0.1, 1.01, float("nan")])
    def test_a_recall_that_cannot_be(self, recall: float) -> None:
        with pytest.raises(ConfigurationError, match="recall="):
            calibrate(self.SCORES, self.LABELS, recall=recall)

    @pytest.mark.parametrize("precision", [0.0, -0.1, 1.01, float("nan")])
    def test_a_precision_that_cannot_be(self, precision: float) -> None:
        with pytest.raises(ConfigurationError, match="above 0 and at most 1"):
            calibrate(self.SCORES, self.LABELS, precision=precision)

    def test_a_score_kind_that_is_none(self) -> None:
        with pytest.raises(ConfigurationError, match="'sigmoid' is none of probability, logit, cosine, maxsim"):
            calibrate(self.SCORES, self.LABELS, score_kind="sigmoid")  # type: ignore[arg-type]

    def test_few_pairs_are_warned_of(self) -> None:
        with pytest.warns(
            RagpairWarning, match=rf"48 judged pairs give a rough line: judge {TRUSTED} or more"
        ) as caught:
            calibrate(self.SCORES[:48], self.LABELS[:48])
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            calibrate(self.SCORES[:52], self.LABELS[:52])


@pytest.fixture
def without_sklearn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)


@pytest.mark.usefixtures("without_sklearn")
def test_the_missing_extra_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r'pip install "ragpair\[calibrate\]"'):
        calibrate(TestBadInput.SCORES, TestBadInput.LABELS)


@pytest.mark.usefixtures("without_sklearn")
def test_a_calibration_works_without_it() -> None:
    line = Calibration(0.5, 1.0, 1.0, 1.0, 0.0, "probability", 100)
    assert line.probability([0.25]) == pytest.approx([0.25])


def test_can_be_kept_and_read() -> None:
    line = calibrate(*repeated([0.1, 0.2, 0.6, 0.8], [0, 0, 1, 1], 20))
    assert pickle.loads(pickle.dumps(line)) == line
    assert all(type(value) in (float, str, int) for value in (getattr(line, name) for name in line.__slots__))
    assert repr(line).startswith("Calibration(threshold=0.4, precision=1.0, recall=1.0, slope=")
    assert (
        str(line)
        == "min_score=0.4 keeps 100% of what is relevant, and 100% of what it keeps is relevant (80 judged pairs)"
    )
    with pytest.raises(AttributeError):
        line.threshold = 0.1  # type: ignore[misc]


def test_of_lines_with_the_same_f1_the_one_that_keeps_most_wins():
    """Both F1 are 2/3, and differ in the last digit of a float: from 1 and 1/2, or from 3/5 and 3/4."""
    with pytest.warns(RagpairWarning, match="rough line"):
        found = calibrate([n / 10 for n in range(10)], [0, 1, 0, 0, 0, 1, 0, 0, 1, 1])
    assert (found.precision, found.recall) == (0.6, 0.75)
