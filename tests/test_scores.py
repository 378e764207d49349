"""From what a server returns to what the authors mean. Pure."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragpair import ConfigurationError
from ragpair.scores import Activation, logit, lowest, sigmoid, to_probability

NUMBERS = st.floats(-1e6, 1e6)


@given(st.lists(NUMBERS))
def test_sigmoid_stays_in_range_and_keeps_the_order(values):
    x = np.array(values)
    p = sigmoid(x)
    assert ((p >= 0) & (p <= 1)).all()
    assert (np.diff(p[np.argsort(x)]) >= 0).all()


@given(st.floats(-25, 25))
def test_logit_undoes_sigmoid(x):
    assert logit(sigmoid(np.array([x])))[0] == pytest.approx(x, abs=1e-3)


def test_known_values():
    np.testing.assert_allclose(sigmoid(np.array([0.0, 1.0, -1.0, 1e9, -1e9])), [0.5, 0.7310586, 0.2689414, 1, 0])
    np.testing.assert_allclose(sigmoid(np.array([3.0, 5.0]), Activation(3.0, 2.0)), [0.5, 0.7310586])
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()


def test_probabilities_are_not_squashed_twice():
    given = np.array([0.1, 0.9])
    assert to_probability(given, "probability") is given


def test_logits_become_probabilities_by_the_family_s_own_activation():
    own = Activation(shift=-2.0, scale=3.0)
    x = np.array([-4.0, 0.5, 7.0])
    np.testing.assert_allclose(to_probability(x, "logit", own), 1 / (1 + np.exp(-(x + 2) / 3)))
    np.testing.assert_allclose(to_probability(sigmoid(x), "probability", own), to_probability(x, "logit", own))


@pytest.mark.parametrize("kind", ["cosine", "maxsim"])
def test_similarities_are_no_probabilities(kind):
    with pytest.raises(ConfigurationError, match="scores='raw'"):
        to_probability(np.array([0.5]), kind)


def test_a_single_score_is_not_stretched():
    assert to_probability(np.array([0.3]), "logit")[0] == pytest.approx(0.5744, abs=1e-4)


def test_lowest():
    others = np.array([-3.0, 2.0])
    assert lowest("probability", others) == 0.0
    assert lowest("cosine", others) == -1.0
    assert lowest("logit", others) <= -3.0
    assert np.isfinite(lowest("logit", np.empty(0)))
