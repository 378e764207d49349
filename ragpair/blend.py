"""Relevance, blended with what else makes a good first place: a low price, many sales, a high rating. Pure.

Sorting by relevance alone ignores what sells; sorting relevant products by price puts the cheapest accessory first, and
adding a price to a score lets a bargain buy its way past relevance. So signals multiply here, within a bound:

    blended = relevance * (1 + sum of |w| * s) / (1 + sum of |w|)

`s` runs from 0 to 1: v / (v + pivot) where more is better (w > 0), pivot / (v + pivot) where less is (w < 0). That is
the saturation function of Elasticsearch's rank_feature query. The pivot is the typical value among these candidates:
their median, each counted by its relevance, so that thirty cheap cases beside ten earbuds do not make every earbud
expensive. Twice the typical value is 0.67, half of it 0.33, and a cent more or less is nothing.

With W the sum of |w|, a document keeps between 1 / (1 + W) of its relevance and all of it. So nothing ever overtakes
what is more than 1 + W times as relevant, whatever it costs and however it sells; and however large the weights,
relevance remains a factor.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import Any, SupportsFloat

import numpy as np

from ragpair.calibrate import Calibration
from ragpair.errors import ConfigurationError, InvalidInput
from ragpair.scores import Scale, ScoreKind

UNKNOWN = 0.5  # what the typical value gets


def blend(
    relevance: Sequence[SupportsFloat] | Scale,
    signals: Mapping[str, Sequence[SupportsFloat | None]],
    weights: Mapping[str, float],
    *,
    calibration: Calibration | None = None,
    score_kind: ScoreKind = "probability",
) -> Scale:
    """Relevance times what the signals leave of it.

    Args:
        relevance: Of the candidates for one query: probabilities, 0 to 1, or what `calibration` makes such of.
        signals: For each name in `weights`, one number of each candidate, 0 or more, such as prices and sales; None
            (or NaN) where it is not known, which counts like the typical value. Units don't matter, but 0 must mean
            nothing of it: ratings from 1 to 5 lie too close together to count, max(rating - 3, 0) does not.
        weights: How much a signal counts; its sign says which way: above 0 more is better, below 0 less is. With
            {"price": -0.5} the most expensive keeps at least 1 / 1.5 of its relevance, and what is free keeps it all,
            unless that is typical.
        calibration: Makes probabilities of scores that are none, such as logits and cosines, or truer ones of those
            that are; `ragpair.calibrate.calibrate` fits it on judged pairs.
        score_kind: What the relevance is. Where it is no probability, it takes a calibration for that kind.

    Returns:
        float64 [n], 0 to 1, in the order of the candidates.

    Raises:
        ConfigurationError: A weight that is not a number, or has no signal; scores without the calibration they need.
        InvalidInput: A relevance that is no probability, or a signal that is below 0 or no number; `index` says whose.
    """
    scores = _probabilities(relevance, calibration, score_kind)
    kept, whole = np.ones(len(scores)), 1.0
    for name, weight in weights.items():
        if name not in signals:
            raise ConfigurationError(f"weights names {name!r}, but the signals are {', '.join(signals) or 'none'}.")
        if isinstance(weight, bool) or not isinstance(weight, Real) or not math.isfinite(weight):
            raise ConfigurationError(f"The weight of {name!r} is {weight!r}; it must be a number, and finite.")
        weight = float(weight)  # numpy's small floats would take the sum down to their precision
        kept += abs(weight) * _share(_values(name, signals[name], len(scores)), scores, more=weight > 0)
        whole += abs(weight)
    return np.asarray(scores * kept / whole)


def kind_of(kinds: Collection[ScoreKind], calibration: Calibration | None) -> ScoreKind:
    """What scores are that say so, or that do not: then they are taken for what the calibration wants.

    Raises:
        ConfigurationError: They are of several kinds.
    """
    told = sorted(set(kinds))
    if len(told) > 1:
        raise ConfigurationError(f"The candidates hold scores of several kinds: {', '.join(told)}.")
    if told:
        return told[0]
    return calibration.score_kind if calibration else "probability"


def _share(values: Scale, relevance: Scale, *, more: bool) -> Scale:
    """0 to 1: how good each value is, beside the typical one."""
    known = ~np.isnan(values)
    pivot = _median(values[known], relevance[known])
    ends = np.where(values > pivot, 1.0, UNKNOWN)  # if the typical value is 0, there is only 0 and more
    shares = np.divide(values, values + pivot, out=ends, where=known & (values + pivot > 0))
    shares = np.where(known, shares, UNKNOWN)
    return shares if more else 1.0 - shares


def _median(values: Scale, counts: Scale) -> float:
    """The middle value, where each counts as told; all count alike if none counts."""
    if not values.size:
        return 0.0
    if not counts.any():
        counts = np.ones(len(values))
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    middle = np.searchsorted(below, [below[-1] * (0.5 - 1e-9), below[-1] * (0.5 + 1e-9)])
    return float(values[order][middle].mean())


def _probabilities(
    relevance: Sequence[SupportsFloat] | Scale, calibration: Calibration | None, kind: ScoreKind
) -> Scale:
    if calibration is None and kind != "probability":
        raise ConfigurationError(
            f"A {kind} cannot be blended: half as high a one is not half as relevant, so bargains would come up that "
            "nobody asked for. Fit a calibration on judged pairs, calibrate(scores, relevant, "
            f"score_kind={kind!r}) of ragpair.calibrate, and pass it as calibration=..."
        )
    if calibration is not None and calibration.score_kind != kind:
        raise ConfigurationError(
            f"The calibration was fitted on {calibration.score_kind} scores, and these are {kind} scores."
        )
    scores = np.array([_number("relevance", index, value) for index, value in enumerate(relevance)], dtype=np.float64)
    if calibration is not None:
        return calibration.probability(scores)
    for index in np.flatnonzero(~((scores >= 0) & (scores <= 1))):
        raise InvalidInput(
            f"The relevance at index {index} is {scores[index]}, which is no probability. Take scores='probability' "
            "from the reranker, or fit a calibration on judged pairs: ragpair.calibrate.",
            index=int(index),
        )
    return scores


def _values(name: str, values: Sequence[SupportsFloat | None], wanted: int) -> Scale:
    if len(values) != wanted:
        raise InvalidInput(f"{wanted} candidates and {len(values)} values of {name!r}: each candidate needs one.")
    return np.array([_value(name, index, value) for index, value in enumerate(values)], dtype=np.float64)


def _value(name: str, index: int, value: Any) -> float:
    cure = " Store numbers, without currency or unit, and None where there is none."
    number = math.nan if value is None else _number(name, index, value, cure)
    if number < 0 or math.isinf(number):
        raise InvalidInput(f"{name!r} at index {index} is {value!r}; it must be 0 or more, and finite.", index=index)
    return number


def _number(name: str, index: int, value: Any, cure: str = "") -> float:
    try:
        if isinstance(value, str | bytes | np.ndarray):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(
            f"{name!r} at index {index} is {value!r:.60}, which is no number.{cure}", index=index
        ) from None
