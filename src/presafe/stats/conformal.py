"""A threshold that promises a rate of false alarms, and probabilities scaled to say what they mean.

conformal_threshold    at most a rate α of new harmless prompts is above it, without an assumption about the scores
scaling                σ(a·z + b), fitted to decisions; b = 0 is temperature scaling with T = 1/a
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

_SLOPES, _INTERCEPTS = (0.01, 100.0), (-100.0, 100.0)
"""Bounds of a fit: scores that separate the classes would ask for an infinite slope."""
_LEAST = 1e-7
"""Nearest that a probability is taken to be to 0 and 1: float32 rounds nearer ones to these."""


class Threshold(NamedTuple):
    """A threshold on n scores, and what it promises."""

    value: float
    """The rank-th smallest score: above it is an alarm."""
    rank: int
    n: int
    low: float
    """2.5 % quantile of the rate of false alarms over sets of n scores."""
    high: float
    """97.5 % quantile."""


class Scaling(NamedTuple):
    """Calibrated probability σ(slope · z + intercept) of log-odds z."""

    slope: float
    intercept: float

    def probability(self, logit: float) -> float:
        """Return σ(slope · z + intercept)."""
        return (1 + math.tanh((self.slope * logit + self.intercept) / 2)) / 2


def conformal_threshold(negative: Sequence[float], rate: Fraction) -> Threshold | None:
    """Return the threshold that a new score of the class exceeds with a probability of at most `rate`.

        k = ⌈(n + 1)(1 − rate)⌉, threshold = k-th smallest score; the rate itself is Beta(n + 1 − k, k) distributed

    Args:
        negative: Scores of the class that should score lower, drawn like those to come.
        rate: In (0, 1).

    Returns:
        The threshold; None if n is too small for this rate, n < 1/rate − 1.

    Source: Vovk 2012 (arXiv 1209.2673); Angelopoulos and Bates 2021 (arXiv 2107.07511), section 3.2.
    """
    from scipy.stats import beta

    n = len(negative)
    rank = math.ceil((n + 1) * (1 - rate))
    if rank > n:
        return None
    low, high = beta.ppf([0.025, 0.975], n + 1 - rank, rank)
    return Threshold(sorted(negative)[rank - 1], rank, n, float(low), float(high))


def logit(probability: float) -> float:
    """Return ln p − ln(1 − p), with p kept away from 0 and 1 as far as float32 does."""
    p = min(max(probability, _LEAST), 1 - _LEAST)
    return math.log(p / (1 - p))


def fit_scaling(logits: Sequence[float], labels: Sequence[bool], *, shifted: bool) -> Scaling:
    """Return the scaling with the least log loss.

    Args:
        logits: Log-odds of each prompt.
        labels: Whether each is of the positive class; both classes occur.
        shifted: Whether the intercept is fitted, too (Platt); otherwise it is 0 (temperature).

    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2; Platt 1999.
    """
    from scipy.optimize import minimize

    z, y = np.asarray(logits, float), np.asarray(labels, float)

    def loss(values: np.ndarray) -> float:
        scaled = values[0] * z + (values[1] if shifted else 0.0)
        return float(np.mean(np.logaddexp(0, scaled) - y * scaled))

    bounds = [_SLOPES, _INTERCEPTS] if shifted else [_SLOPES]
    best = minimize(loss, [1.0, 0.0] if shifted else [1.0], method="L-BFGS-B", bounds=bounds).x
    return Scaling(float(best[0]), float(best[1]) if shifted else 0.0)


def log_loss(logits: Sequence[float], labels: Sequence[bool], scaling: Scaling) -> float:
    """Return the mean of −ln σ(±(slope · z + intercept)), in nats.

    Args:
        logits: Log-odds of each prompt.
        labels: Whether each is of the positive class.
        scaling: How log-odds become probabilities.
    """
    scaled = scaling.slope * np.asarray(logits, float) + scaling.intercept
    return float(np.mean(np.logaddexp(0, scaled) - np.asarray(labels, float) * scaled))


def cross_fitted_loss(logits: Sequence[float], labels: Sequence[bool], *, shifted: bool) -> float:
    """Return the log loss of each half at the scaling of the other half; halves are the even and the odd places.

    Args:
        logits: Log-odds of each prompt.
        labels: Whether each is of the positive class; both classes occur in each half.
        shifted: As for `fit_scaling`.
    """
    losses = []
    for own, other in ((0, 1), (1, 0)):
        scaling = fit_scaling(logits[other::2], labels[other::2], shifted=shifted)
        losses.append(log_loss(logits[own::2], labels[own::2], scaling) * len(labels[own::2]))
    return sum(losses) / len(labels)
