"""What a score means on your own documents: a threshold and a probability, fitted from pairs that somebody has judged.

A reranker's 0.5 is a line of its authors' training, not of your archive: the same model answers one collection with
0.9 for all that is relevant, and another with 0.2. Some fifty judged pairs or more say where the line is:

    reranker = Reranker("http://localhost:8000")
    scores = np.concatenate([reranker.score(query, documents) for query, documents, _ in judged])
    relevant = np.concatenate([labels for _, _, labels in judged])  # 1 where the document answers the query, else 0
    line = calibrate(scores, relevant)
    RagpairRerank(base_url="http://localhost:8000", min_score=line.threshold)

The line holds for one model, one `scores=` of the reranker and one kind of documents. Fitting it needs scikit-learn:
pip install "ragpair[calibrate]".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragpair.errors import ConfigurationError, InvalidInput, warn
from ragpair.scores import Scale, ScoreKind, logit, sigmoid

FEWEST = 10  # pairs; with fewer nothing can be fitted
SATURATED = 1e-6  # a probability this near to 0 or 1 is rounding, or a blank document: no evidence of its own
TRUSTED = 50  # pairs; with fewer the line moves a lot from one sample to the next


@dataclass(frozen=True, slots=True)
class Calibration:
    """A line between relevant and not, on the scale of the scores that it was fitted from.

    Attributes:
        threshold: The `min_score` of the adapters: a document is kept from here on.
        precision: Of the judged pairs that the threshold keeps, the share that is relevant.
        recall: Of the judged pairs that are relevant, the share that the threshold keeps.
        slope: `probability` is sigmoid(slope * x + intercept), x being the score, or its logit if it is a probability.
        intercept: See `slope`.
        score_kind: What the scores are.
        n: How many pairs it was fitted from.
    """

    threshold: float
    precision: float
    recall: float
    slope: float
    intercept: float
    score_kind: ScoreKind
    n: int

    def __str__(self) -> str:
        return (
            f"min_score={self.threshold:.4g} keeps {self.recall:.0%} of what is relevant, and {self.precision:.0%} of "
            f"what it keeps is relevant ({self.n} judged pairs)"
        )

    def probability(self, scores: ArrayLike) -> Scale:
        """How likely documents with these scores are relevant: float64, as many as `scores`, never falling with them.

        Raises:
            InvalidInput: A score is not a number, or not on the scale of this calibration.
        """
        return sigmoid(self.slope * _axis(_numbers(scores), self.score_kind) + self.intercept)


def calibrate(
    scores: ArrayLike,
    relevant: ArrayLike,
    *,
    precision: float | None = None,
    recall: float | None = None,
    score_kind: ScoreKind = "probability",
) -> Calibration:
    """Fits a threshold and a probability from judged pairs.

    The threshold has the best F1 on these pairs, or the best recall at the `precision` asked for, or the best precision
    at the `recall` asked for; where several do as well, the one that keeps most. Ask for recall where a query has one
    relevant document among many: the best F1 may drop most of those. The threshold lies half-way to the next lower
    score, so that an engine's last digits decide nothing. The probability is Platt's scaling: a logistic regression on
    the score, with a regularisation so weak (C=10 on scores of spread 1) that it matters only where few pairs overlap,
    and keeps the slope finite where none do.

    Args:
        scores: Of pairs of query and document, from one reranker, in any order.
        relevant: For each score 1 or True if the document answers the query, else 0 or False.
        precision: The share of relevant documents wanted among those kept, above 0 and at most 1.
        recall: The share of the relevant documents that is to be kept, above 0 and at most 1; not both.
        score_kind: What the scores are: "probability", as from a `Reranker` by default, or with `scores="raw"` what
            its `describe()["score_kind"]` says.

    Raises:
        ConfigurationError: scikit-learn is not installed, no threshold reaches `precision`, or there is no such
            `score_kind`.
        InvalidInput: Too few pairs, lengths that differ, a label that is not 0 or 1, labels all alike, a score that is
            not a number or not on its scale, or scores that fall with relevance.
    """
    if score_kind not in get_args(ScoreKind):
        raise ConfigurationError(f"score_kind={score_kind!r} is none of {', '.join(get_args(ScoreKind))}.")
    for name, wanted in (("precision", precision), ("recall", recall)):
        if wanted is not None and not 0 < wanted <= 1:
            raise ConfigurationError(f"{name}={wanted} must be above 0 and at most 1.")
    if precision is not None and recall is not None:
        raise ConfigurationError("precision= and recall= cannot both be asked for: one threshold decides both.")
    values, labels = _numbers(scores), _labels(relevant)
    if len(values) != len(labels):
        raise InvalidInput(f"{len(values)} scores and {len(labels)} labels: each score needs one.")
    if len(values) < FEWEST:
        raise InvalidInput(f"{len(values)} judged pairs are too few to fit from; {FEWEST} are the least.")
    if labels.all() or not labels.any():
        raise InvalidInput(
            f"All {len(labels)} labels are {labels[0]:d}: it takes relevant and irrelevant pairs to draw a line."
        )
    slope, intercept = _platt(_axis(values, score_kind), labels)
    if slope <= 0:
        raise InvalidInput(
            "The relevant pairs do not score higher than the others, so no threshold can help. Are the labels swapped, "
            "or the scores of another order? If not, the reranker ranks wrongly: look at its describe()."
        )
    threshold, reached, kept = _threshold(values, labels, precision, recall)
    if len(values) < TRUSTED:
        warn(f"{len(values)} judged pairs give a rough line: judge {TRUSTED} or more before you rely on it.")
    return Calibration(threshold, reached, kept, slope, intercept, score_kind, len(values))


def _platt(x: Scale, labels: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept."""
    if x.min() == x.max():
        return 0.0, 0.0
    mean, spread = float(x.mean()), float(x.std())
    model = _sklearn("linear_model").LogisticRegression(C=10.0, tol=1e-8, max_iter=1000)
    model.fit(((x - mean) / spread)[:, None], labels)
    slope = float(model.coef_[0, 0]) / spread
    return slope, float(model.intercept_[0]) - slope * mean


def _threshold(
    values: Scale, labels: NDArray[np.bool_], precise: float | None, complete: float | None
) -> tuple[float, float, float]:
    """Threshold, and its precision and recall."""
    precision, recall, lines = _sklearn("metrics").precision_recall_curve(labels, values)
    precision, recall = precision[:-1], recall[:-1]  # the last point keeps nothing and has no threshold
    if precise is not None:
        reached = np.flatnonzero(precision >= precise)
        if not reached.size:
            raise ConfigurationError(
                f"No threshold reaches precision={precise}: on these pairs the best is {precision.max():.3f}."
            )
        best = int(reached[0])  # the lowest line has the best recall
    elif complete is not None:
        best = int(np.argmax(np.where(recall >= complete, precision, -1.0)))
    else:
        f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
        best = int(np.argmax(f1.round(12)))  # of equal ones the first, which keeps most
    line = float(lines[best])
    if best:
        between = (float(lines[best - 1]) + line) / 2
        line = between if between > lines[best - 1] else line
    return line, float(precision[best]), float(recall[best])


def _axis(values: Scale, kind: ScoreKind) -> Scale:
    """The scores on a scale without ends where they have one."""
    if kind != "probability":
        return values
    outside = np.flatnonzero((values < 0) | (values > 1))
    if outside.size:
        raise InvalidInput(
            f"The score {values.flat[outside[0]]} is no probability. If these are raw scores, say which: "
            "score_kind='logit', 'cosine' or 'maxsim'.",
            index=int(outside[0]),
        )
    return logit(np.clip(values, SATURATED, 1 - SATURATED))


def _numbers(scores: ArrayLike) -> Scale:
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise InvalidInput(f"The scores must be numbers: {exc}.") from None
    if values.ndim != 1:
        raise InvalidInput(f"The scores must be one list of numbers, not an array of shape {values.shape}.")
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        raise InvalidInput(f"The score at index {wrong[0]} is {values[wrong[0]]}.", index=int(wrong[0]))
    return values


def _labels(relevant: ArrayLike) -> NDArray[np.bool_]:
    labels = np.asarray(relevant, dtype=object)  # as they are: numpy would make a word of every number beside a word
    if labels.ndim != 1:
        raise InvalidInput(f"The labels must be one list of 0 and 1, not an array of shape {labels.shape}.")
    for index, label in enumerate(labels.tolist()):
        if label not in (0, 1):
            raise InvalidInput(f"The label at index {index} is {label!r}; it must be 0 or 1.", index=index)
    return labels.astype(np.bool_)


def _sklearn(module: str) -> Any:
    from importlib import import_module  # late, with all that follows: importing ragpair stays cheap

    try:
        return import_module(f"sklearn.{module}")
    except ImportError as exc:
        raise ConfigurationError(
            f"calibrate() needs scikit-learn, which cannot be imported ({exc}). Install it: pip install "
            '"ragpair[calibrate]"'
        ) from exc
