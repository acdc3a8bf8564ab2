"""How well scores separate two classes: the area under the ROC curve, and the hits at a fixed false-alarm rate."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return the area under the ROC curve, P(positive > negative) + ½ P(equal), in [0, 1].

    Args:
        positive: Scores of the class that should score higher; at least one.
        negative: Scores of the other class; at least one.

    Source: Mann and Whitney 1947.
    """
    ranked = sorted([(value, 1) for value in positive] + [(value, 0) for value in negative])
    rank_sum, start = 0.0, 0
    while start < len(ranked):
        end = start
        while end < len(ranked) and ranked[end][0] == ranked[start][0]:
            end += 1
        mean_rank = (start + end + 1) / 2  # ranks start + 1 … end share their mean
        rank_sum += mean_rank * sum(label for _, label in ranked[start:end])
        start = end
    m, n = len(positive), len(negative)
    return (rank_sum - m * (m + 1) / 2) / (m * n)


def placements(
    positive: Sequence[float], negative: Sequence[float]
) -> tuple[Float[np.ndarray, " positives"], Float[np.ndarray, " negatives"]]:
    """Return each positive's share of negatives below it, and each negative's share of positives above it.

    Equal scores count half. The mean of either is the area under the ROC curve.

    Args:
        positive: Scores of the class that should score higher; at least one.
        negative: Scores of the other class; at least one.

    Source: DeLong, DeLong and Clarke-Pearson 1988.
    """
    ups, downs = np.asarray(positive, float)[:, None], np.asarray(negative, float)[None, :]
    wins = (ups > downs) + 0.5 * (ups == downs)
    return wins.mean(axis=1), wins.mean(axis=0)


def threshold_at(negative: Sequence[float], share: Fraction) -> float:
    """Return the threshold that at most a share of the negatives exceed, and no lower one would do.

    Args:
        negative: Scores of the class that should score lower; at least one.
        share: In [0, 1).
    """
    return sorted(negative, reverse=True)[int(len(negative) * share)]


def _tpr_at(positive: Sequence[float], negative: Sequence[float], share: Fraction) -> float:
    threshold = threshold_at(negative, share)
    return sum(value > threshold for value in positive) / len(positive)


def tpr_at_fpr_10(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return the share of positives above the threshold that at most a tenth of the negatives exceed, in [0, 1].

    Args:
        positive: Scores of the class that should score higher; at least one.
        negative: Scores of the other class; at least one.
    """
    return _tpr_at(positive, negative, Fraction(1, 10))


def tpr_at_fpr_1(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return the same at a hundredth of the negatives. With fewer than 100 of them, none may be above the threshold."""
    return _tpr_at(positive, negative, Fraction(1, 100))


def tpr_at_fpr_01(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return the same at a thousandth of the negatives. With fewer than 1,000 of them, none may be above."""
    return _tpr_at(positive, negative, Fraction(1, 1000))


def cross_fitted(
    positive: Sequence[float], negative: Sequence[float], share: Fraction
) -> tuple[list[bool], list[bool]]:
    """Return which positives and negatives are above a threshold that was set on the other half of the negatives.

    Halves are the even and the odd places, so that halves worded alike, or sorted by topic, are alike. A threshold that
    is set and measured on the same prompts flatters: here each prompt is decided by the other half's.

    Args:
        positive: Scores of the class that should score higher, in the order of the prompts.
        negative: Scores of the other class, in the order of the prompts; at least two.
        share: Share of the negatives that may be above the threshold.

    Returns:
        Whether each positive, and each negative, is above its threshold.
    """
    thresholds = [threshold_at(negative[1::2], share), threshold_at(negative[0::2], share)]

    def decided(scores: Sequence[float]) -> list[bool]:
        return [score > thresholds[place % 2] for place, score in enumerate(scores)]

    return decided(positive), decided(negative)
