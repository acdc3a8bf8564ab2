"""Two systems on the same prompts: the paired difference, its interval, its p-value, and what n could have shown.

    d_i         = right_i − left_i, each the share of a prompt's judged answers that count
    difference  = mean of d_i over the n prompts with a judged answer of both

One seed and one answer per side, so that each d_i is −1, 0 or 1:

    interval    percentile bootstrap over prompts (`bootstrap.difference_bounds`)
    p           exact McNemar test
    detectable  (z₀.₉₇₅ + z₀.₈) · σ / √n, with σ² from the same four cells, half a prompt added to each: the true
                difference that a test at 5 % finds four times in five

One seed per side and several answers per prompt, so that d_i lies between them:

    interval    difference ± t · se with se = σ/√n and n − 1 degrees of freedom, p from t = difference / se,
                detectable (t₀.₉₇₅ + t₀.₈) · se: the prompts are the sample, and answers to one are not independent

Several seeds, on one side or both (a seed is a training):

    se²         = s²/k of the seeds' means, of each side with several seeds, + σ²/n of the prompts; if a seed is one
                training on both sides (the same rows in the same order), s²/k is of the seeds' differences
    interval    difference ± t · se, p from t = difference / se, detectable (t₀.₉₇₅ + t₀.₈) · se, all with the smaller
                k − 1 degrees of freedom: wide with few seeds, because little is then known about another seed

Sources: McNemar 1947; Agresti and Min 2005 for the half prompts; Holm 1979; Miller 2024 (arXiv 2411.00640) for pairing
the means of several answers, prompt by prompt. The sum over seeds and prompts is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from presafe.stats.bootstrap import difference_bounds
from presafe.stats.intervals import Z95

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

Outcomes = Mapping[str, Sequence[float | None]]
"""Share of each prompt's judged answers that count, one entry per seed, by prompt id; None if none could be judged."""

_POWER_Z = Z95 + 0.8416212335729143
"""z of a two-sided 5 % test plus z of a power of 80 %."""


class Comparison(NamedTuple):
    """One suite and metric, right against left. Rates are over the `n` prompts with judged answers of both sides."""

    left: float
    right: float
    difference: float
    low: float
    high: float
    p: float
    only_left: int
    """Prompts whose share is higher on the left; with one seed, the discordant pairs."""
    only_right: int
    n: int
    num_left_out: int
    """Prompts without a judged answer of one of the two."""
    detectable: float | None


class _Estimate(NamedTuple):
    """Bounds of a difference, its p-value and the difference that could have been detected."""

    low: float
    high: float
    p: float
    detectable: float


def compare(left: Outcomes, right: Outcomes, *, seed: int = 0, paired_seeds: bool = False) -> Comparison | None:
    """Return the paired difference of two systems on one suite.

    Args:
        left: The system compared against.
        right: The system of interest, on the same prompts.
        seed: Seed of the bootstrap.
        paired_seeds: Whether the k-th entries of both sides belong together, too.

    Returns:
        None if no prompt has a judged answer of both.

    Raises:
        ValueError: the prompts differ, or the number of seeds that are paired.
    """
    if left.keys() != right.keys():
        raise ValueError("paired systems must have answered the same prompts")
    left_side, right_side = _Side.of(left), _Side.of(right)
    both = ~np.isnan(left_side.shares) & ~np.isnan(right_side.shares)
    n = int(both.sum())
    if n == 0:
        return None
    differences = right_side.shares[both] - left_side.shares[both]
    mean = float(differences.mean())
    only_left, only_right = int((differences < 0).sum()), int((differences > 0).sum())
    sigma = _spread(differences)
    sides = [_Side.of_differences(left, right)] if paired_seeds else [left_side, right_side]
    if trainings := [side for side in sides if side.num_seeds > 1]:
        error = sqrt(sum(side.variance_of_mean(both) for side in trainings) + sigma**2 / n)
        estimate = _student(mean, error, min(side.num_seeds for side in trainings) - 1)
    elif set(np.abs(differences)) <= {0.0, 1.0}:
        low, high = difference_bounds(only_left, only_right, n, seed=seed)
        estimate = _Estimate(low, high, mcnemar(only_left, only_right), _POWER_Z * sigma / sqrt(n))
    else:
        estimate = _student(mean, sigma / sqrt(n), max(1, n - 1))
    return Comparison(
        left=float(left_side.shares[both].mean()),
        right=float(right_side.shares[both].mean()),
        difference=mean,
        low=estimate.low,
        high=estimate.high,
        p=estimate.p,
        only_left=only_left,
        only_right=only_right,
        n=n,
        num_left_out=len(left) - n,
        detectable=estimate.detectable if estimate.detectable <= 1 else None,
    )


def mcnemar(only_left: int, only_right: int) -> float:
    """Return the p-value of the exact two-sided McNemar test: the discordant pairs against a fair coin.

    Args:
        only_left: Prompts on which only the left system hits.
        only_right: Prompts on which only the right system hits.

    Returns:
        p in (0, 1]; 1 if there are no discordant pairs.
    """
    from scipy.stats import binomtest

    n = only_left + only_right
    return float(binomtest(only_left, n).pvalue) if n else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for several tests by Holm's method.

    Args:
        p_values: One per test, in [0, 1].

    Returns:
        The adjusted p-values, in the given order.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


class _Side(NamedTuple):
    """Prompts × seeds: the share of answers that count, or a difference of two; NaN if none could be judged."""

    answers: Float[np.ndarray, "prompts seeds"]

    @classmethod
    def of(cls, outcomes: Outcomes) -> _Side:
        """Build a side from one system's outcomes."""
        return cls(_drop_unjudged_seeds(_table(outcomes)))

    @classmethod
    def of_differences(cls, left: Outcomes, right: Outcomes) -> _Side:
        """Build a side from right minus left, seed by seed."""
        left_table, right_table = _table(left), _table(right)
        if left_table.shape != right_table.shape:
            raise ValueError("paired systems must have the same seeds")
        return cls(_drop_unjudged_seeds(right_table - left_table))

    @property
    def num_seeds(self) -> int:
        """Return the number of seeds with a judged answer."""
        return int(self.answers.shape[1])

    @property
    def shares(self) -> Float[np.ndarray, " prompts"]:
        """Return the mean of each prompt over its judged seeds; NaN if there is none."""
        judged = ~np.isnan(self.answers)
        hits = np.where(judged, self.answers, 0).sum(axis=1)
        return np.where(judged.any(axis=1), hits / np.maximum(judged.sum(axis=1), 1), np.nan)

    def variance_of_mean(self, prompts: Bool[np.ndarray, " prompts"]) -> float:
        """Return s²/k of the seeds' means over the selected prompts; 0 for one seed."""
        means = np.nanmean(self.answers[prompts], axis=0)
        means = means[~np.isnan(means)]
        return float(means.var(ddof=1)) / len(means) if len(means) > 1 else 0.0


def _table(outcomes: Outcomes) -> Float[np.ndarray, "prompts seeds"]:
    """Return outcomes as an array; NaN if an outcome is None."""
    return np.array([[np.nan if share is None else float(share) for share in seeds] for seeds in outcomes.values()])


def _drop_unjudged_seeds(answers: Float[np.ndarray, "prompts seeds"]) -> Float[np.ndarray, "prompts seeds"]:
    """Drop seeds with no judged answer."""
    kept: Float[np.ndarray, "prompts seeds"] = answers[:, ~np.isnan(answers).all(axis=0)]
    return kept


def _spread(differences: Float[np.ndarray, " prompts"]) -> float:
    """Return the standard deviation σ of paired differences.

    Half a prompt is added each way, so that the interval never collapses to a point.
    """
    n = len(differences)
    mean_square = (float((differences**2).sum()) + 1) / (n + 2)
    return sqrt(max(0.0, mean_square - (float(differences.sum()) / (n + 2)) ** 2))


def _student(difference: float, error: float, freedom: int) -> _Estimate:
    """Estimate by Student's t, from a standard error and its degrees of freedom."""
    from scipy.stats import t

    margin = float(t.ppf(0.975, freedom)) * error
    return _Estimate(
        low=max(-1.0, difference - margin),
        high=min(1.0, difference + margin),
        p=float(2 * t.sf(abs(difference) / error, freedom)),
        detectable=margin + float(t.ppf(0.8, freedom)) * error,
    )
