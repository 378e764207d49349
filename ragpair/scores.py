"""What a score means, and the way from one meaning to another. Pure.

`probability`  0 to 1: what the model's authors call the relevance of a document.
`logit`        any real number: the same before the activation.
`cosine`       -1 to 1: the similarity of two vectors. No probability, whatever its range.
`maxsim`       late interaction: a sum, or a mean, of cosines. No probability either.

Only logits become probabilities, by the family's own activation, sigmoid((x - shift) / scale), and only once. Scores
are never stretched by the smallest and largest of a list: a single hit has a meaning too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ragpair.errors import ConfigurationError

ScoreKind = Literal["probability", "logit", "cosine", "maxsim"]
Scale = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Activation:
    """What makes a logit a probability: sigmoid((x - shift) / scale), by default the plain sigmoid."""

    shift: float = 0.0
    scale: float = 1.0


PLAIN = Activation()


def sigmoid(logits: Scale, activation: Activation = PLAIN) -> Scale:
    """1 / (1 + exp(-(x - shift) / scale)), without overflow at either end."""
    x = (logits - activation.shift) / activation.scale
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


def logit(probabilities: Scale) -> Scale:
    """log(p / (1 - p)), with p kept 1e-12 away from 0 and 1: what a rounded probability can still tell."""
    p = np.clip(probabilities, 1e-12, 1.0 - 1e-12)
    return np.log(p) - np.log1p(-p)


def to_probability(values: Scale, served: ScoreKind, activation: Activation = PLAIN) -> Scale:
    """What a server returned, as the authors' probability.

    Args:
        values: The server's scores.
        served: What they are. "probability" means the plain sigmoid of the logit, which is what engines apply.
        activation: What the family's authors apply.

    Raises:
        ConfigurationError: Cosines and max-sims have no probability.
    """
    if served == "logit":
        return sigmoid(values, activation)
    if served == "probability":
        return values if activation == PLAIN else sigmoid(logit(values), activation)
    raise ConfigurationError(f"a {served} is not a probability and cannot be made one; pass scores='raw' to get it.")


def lowest(kind: ScoreKind, others: Scale) -> float:
    """The score of a document that holds nothing: the bottom of the scale, or just below the list if there is none."""
    if kind == "probability":
        return 0.0
    if kind == "cosine":
        return -1.0
    return float(np.nextafter(others.min(), -np.inf)) if others.size else 0.0
