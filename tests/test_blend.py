"""Relevance blended with signals: the order that a shop wants, and the bound that keeps bargains down."""

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragpair import ConfigurationError, InvalidInput
from ragpair.blend import blend
from ragpair.calibrate import Calibration

RELEVANCE = [0.9, 0.85, 0.05]  # earbuds, cheaper earbuds, and a case for earbuds
PRICE = [80.0, 40.0, 4.0]
SALES = [100, 900, 9000]


def order(scores):
    return np.argsort(-np.asarray(scores), kind="stable").tolist()


def test_the_cheaper_of_two_good_ones_comes_first_and_the_bargain_that_is_none_stays_last():
    assert order(blend(RELEVANCE, {"price": PRICE, "sales": SALES}, {"price": -1, "sales": 1})) == [1, 0, 2]


def test_the_sign_says_which_way():
    assert order(blend([0.5] * 3, {"price": PRICE}, {"price": -0.5})) == [2, 1, 0]
    assert order(blend([0.5] * 3, {"price": PRICE}, {"price": 0.5})) == [0, 1, 2]


def test_with_weights_of_zero_it_is_the_relevance():
    assert blend(RELEVANCE, {"price": PRICE}, {"price": 0}).tolist() == RELEVANCE
    assert blend(RELEVANCE, {}, {}).tolist() == RELEVANCE


def test_worked_by_hand():
    # The typical price, each counted by its relevance, is 40; of 80, 40 and 20 there is 1/3, 1/2 and 2/3.
    found = blend([0.6, 0.9, 0.6], {"price": [80, 40, 20]}, {"price": -0.5})
    assert found == pytest.approx([0.6 * (1 + 0.5 / 3) / 1.5, 0.9 * 1.25 / 1.5, 0.6 * (1 + 1 / 3) / 1.5])
    # Two signals: 1 + 0.5 * share of the price + 1 * share of the sales, over 2.5.
    found = blend([0.6, 0.9, 0.6], {"price": [80, 40, 20], "sales": [0, 10, 30]}, {"price": -0.5, "sales": 1})
    assert found == pytest.approx(
        [0.6 * (1 + 0.5 / 3) / 2.5, 0.9 * (1 + 0.25 + 0.5) / 2.5, 0.6 * (1 + 1 / 3 + 0.75) / 2.5]
    )


def test_what_is_typical_is_told_by_the_relevant_ones():
    """Thirty cheap cases do not make each of two earbuds equally dear."""
    cases = [0.001] * 30
    with_cases = blend([0.9, 0.9, *cases], {"price": [80, 40, *[4] * 30]}, {"price": -2})
    alone = blend([0.9, 0.9], {"price": [80, 40]}, {"price": -2})
    assert with_cases[1] / with_cases[0] > 1.15 < alone[1] / alone[0]


def test_units_do_not_matter():
    cents = [price * 100 for price in PRICE]
    assert blend(RELEVANCE, {"p": cents}, {"p": -1}) == pytest.approx(blend(RELEVANCE, {"p": PRICE}, {"p": -1}))


def test_a_cent_is_nothing():
    low, high = blend([0.5, 0.5], {"price": [10.00, 10.01]}, {"price": -1})
    assert 0 < low - high < 0.001


def test_unknown_counts_like_the_typical_one():
    found = blend([0.5] * 4, {"sales": [None, 10, 1, math.nan]}, {"sales": 1})
    assert found[0] == found[3] == pytest.approx(0.5 * 1.5 / 2)
    assert order(found) == [1, 0, 3, 2]
    assert blend([0.5, 0.4], {"sales": [None, None]}, {"sales": 1}) == pytest.approx([0.375, 0.3])


def test_nothing_sold_yet():
    found = blend([0.5, 0.5, 0.5], {"sales": [0, 0, 3]}, {"sales": 1})
    assert order(found) == [2, 0, 1]
    assert order(blend([0.5, 0.5, 0.5], {"price": [0, 0, 3]}, {"price": -1})) == [0, 1, 2]


@pytest.mark.parametrize("relevance", [[], [0.7], [0.0, 0.0]])
def test_few_candidates_and_irrelevant_ones(relevance):
    found = blend(relevance, {"price": [5.0] * len(relevance)}, {"price": -1})
    assert found == pytest.approx([0.75 * score for score in relevance])


def test_numbers_of_other_kinds_are_numbers():
    assert blend([0.5, 0.5], {"price": [Decimal("9.90"), np.float32(3)]}, {"price": -1}).shape == (2,)
    signals = {"price": [9.90, 3]}
    for weight in (np.float32(-0.1), np.float64(-0.1)):
        assert blend(RELEVANCE[:2], signals, {"price": weight}) == pytest.approx(
            blend(RELEVANCE[:2], signals, {"price": float(weight)}), abs=1e-15
        )
    assert blend([0.5], {"sales": [1]}, {"sales": np.int64(1)}) == pytest.approx([0.375])


numbers = st.one_of(st.none(), st.floats(0, 1e12))
relevances = st.floats(0, 1).filter(lambda value: value == 0 or value > 1e-300)  # below, floats lose their digits
rows = st.lists(st.tuples(relevances, numbers, numbers), max_size=20)
weight = st.floats(-5, 5)


@given(rows, weight, weight)
def test_nothing_overtakes_what_is_much_more_relevant(rows, price, sales):
    relevance = [row[0] for row in rows]
    found = blend(relevance, {"p": [row[1] for row in rows], "s": [row[2] for row in rows]}, {"p": price, "s": sales})
    bound = 1 + abs(price) + abs(sales)
    assert np.all(found <= np.array(relevance) * (1 + 1e-9))
    assert np.all(found * bound >= np.array(relevance) * (1 - 1e-9))


@given(rows, weight)
def test_of_equally_relevant_ones_the_better_signal_never_comes_last(rows, price):
    known = [row[1] for row in rows if row[1] is not None]
    found = blend([0.5] * len(known), {"p": known}, {"p": price})
    for value, score in zip(known, found, strict=True):
        for other, less in zip(known, found, strict=True):
            if (value - other) * price > 0:
                assert score >= less


CALIBRATION = Calibration(0.5, 1.0, 1.0, slope=20.0, intercept=-10.0, score_kind="cosine", n=100)


def test_cosines_want_a_calibration():
    with pytest.raises(ConfigurationError, match=r"cosine cannot be blended.*calibrate\(scores, relevant, score_kind"):
        blend([0.7, 0.6], {"price": [9, 1]}, {"price": -1}, score_kind="cosine")


def test_with_a_calibration_a_lower_cosine_is_much_less_relevant():
    signals, weights = {"price": [90.0, 1.0]}, {"price": -2}
    assert order(blend([0.7, 0.5], signals, weights)) == [1, 0]  # cosines, taken for what they are not
    found = blend([0.7, 0.5], signals, weights, calibration=CALIBRATION, score_kind="cosine")
    assert order(found) == [0, 1]
    assert blend([0.7], {}, {}, calibration=CALIBRATION, score_kind="cosine") == pytest.approx(
        CALIBRATION.probability([0.7])
    )


def test_a_calibration_of_another_kind_is_refused():
    with pytest.raises(ConfigurationError, match="fitted on cosine scores, and these are logit scores"):
        blend([3.0], {}, {}, calibration=CALIBRATION, score_kind="logit")


@pytest.mark.parametrize("relevance", [[0.5, 1.5], [0.5, -0.1], [0.5, math.nan]])
def test_a_relevance_that_is_no_probability(relevance):
    with pytest.raises(InvalidInput, match=r"relevance at index 1 is .*, which is no probability") as caught:
        blend(relevance, {}, {})
    assert caught.value.index == 1


@pytest.mark.parametrize("value", ["9.90 EUR", "9.90", -1, math.inf, [1], b"1"])
def test_a_signal_that_is_no_number(value):
    with pytest.raises(InvalidInput, match="'price' at index 1 is") as caught:
        blend([0.5, 0.5], {"price": [1.0, value]}, {"price": -1})
    assert caught.value.index == 1


def test_what_does_not_fit_together():
    with pytest.raises(InvalidInput, match="2 candidates and 1 values of 'price'"):
        blend([0.5, 0.5], {"price": [1.0]}, {"price": -1})
    with pytest.raises(ConfigurationError, match="names 'prize', but the signals are price"):
        blend([0.5], {"price": [1.0]}, {"prize": -1})
    with pytest.raises(ConfigurationError, match="weight of 'price' is nan"):
        blend([0.5], {"price": [1.0]}, {"price": math.nan})
    with pytest.raises(ConfigurationError, match="weight of 'price' is '-1'"):
        blend([0.5], {"price": [1.0]}, {"price": "-1"})


@pytest.mark.parametrize("bad", [[0.5], np.array([0.5]), "0.9", "high", None, 1j], ids=repr)
def test_a_relevance_that_is_no_number_is_named(bad):
    for line in (None, Calibration(0.5, 1.0, 1.0, slope=20.0, intercept=-10.0, score_kind="probability", n=100)):
        with pytest.raises(InvalidInput, match="'relevance' at index 1 is") as caught:
            blend([0.5, bad], {}, {}, calibration=line)
        assert caught.value.index == 1
        assert "None where there is none" not in str(caught.value)  # that is for signals
