"""Two systems on the same prompts: the paired difference, its interval, its p-value, and what n could have shown.

    d_i         = right_i − left_i, each the share of a prompt's judged answers that count
    difference  = mean of d_i over the n prompts with a judged answer of both

One seed and one answer per side, so that each d_i is −1, 0 or 1:

    interval    percentile bootstrap over prompts (`bootstrap.difference_bounds`)
    p           exact McNemar test
    detectable  (z₀.₉₇₅ + z₀.₈) · σ / √n, with σ² from the same four cells, half a prompt added to each: the true
                difference that a test at 5 % finds four times in five

One seed per side and several answers per prompt, so that d_i lies between them:

    interval    Student's t over prompts, with n − 1 degrees of freedom (`stats.crossed` with one seed): the prompts are
                the sample, and answers to one are not independent

Several seeds, on one side or both (a seed is a training):

    interval, p, detectable     over seeds and prompts (`stats.crossed`); if a seed is one training on both sides (the
                                same rows in the same order), the variance over seeds is that of the seeds' differences

Sources: McNemar 1947; Agresti and Min 2005 for the half prompts; Holm 1979; Miller 2024 (arXiv 2411.00640) for pairing
the means of several answers, prompt by prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from presafe.stats.bootstrap import difference_bounds
from presafe.stats.crossed import Estimate, crossed_estimate, fill_gaps
from presafe.stats.intervals import Z95

if TYPE_CHECKING:
    from jaxtyping import Float

    from presafe.stats.crossed import Group

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
    left_table, right_table = _table(left), _table(right)
    if paired_seeds and left_table.shape != right_table.shape:
        raise ValueError("paired systems must have the same seeds")
    both = ~np.isnan(left_table).all(axis=1) & ~np.isnan(right_table).all(axis=1)
    n = int(both.sum())
    if n == 0:
        return None
    left_shares, right_shares = _shares(left_table[both], right_table[both], paired_seeds)
    differences = right_shares.mean(axis=1) - left_shares.mean(axis=1)
    only_left, only_right = int((differences < 0).sum()), int((differences > 0).sum())
    if left_shares.shape[1] == right_shares.shape[1] == 1 and set(np.abs(differences)) <= {0.0, 1.0}:
        low, high = difference_bounds(only_left, only_right, n, seed=seed)
        mean, p = float(differences.mean()), mcnemar(only_left, only_right)
        estimate = Estimate(mean, low, high, p, _POWER_Z * _spread(differences) / sqrt(n))
    elif n == 1:
        return None
    else:
        estimate = difference_estimate([left_shares], [right_shares], paired_seeds=paired_seeds)
    return Comparison(
        left=float(left_shares.mean()),
        right=float(right_shares.mean()),
        difference=estimate.value,
        low=max(-1.0, estimate.low),
        high=min(1.0, estimate.high),
        p=estimate.p,
        only_left=only_left,
        only_right=only_right,
        n=n,
        num_left_out=len(left) - n,
        detectable=estimate.detectable if estimate.detectable <= 1 else None,
    )


def difference_estimate(
    left: Sequence[Group], right: Sequence[Group], *, paired_seeds: bool, are_shares: bool = True
) -> Estimate:
    """Return right minus left of a statistic that is a sum of means over groups of prompts.

    Args:
        left: Groups of the system compared against, prompts × seeds.
        right: Groups of the system of interest, the same prompts.
        paired_seeds: Whether the k-th seeds of both sides belong together.
        are_shares: Whether values are shares of answers in [−1, 1]. If so, the variance is at least what half a
            prompt each way would give alone, so that no interval collapses to a point.

    Raises:
        ValueError: as `crossed_estimate`, or paired sides have different numbers of seeds.
    """
    least = sum(1 / (len(group) * (len(group) + 2)) for group in left) if are_shares else 0.0
    if not paired_seeds:
        return crossed_estimate([-group for group in left], right, least_variance=least)
    if any(ours.shape != theirs.shape for ours, theirs in zip(left, right, strict=True)):
        raise ValueError("paired systems must have the same prompts and seeds")
    differences = [theirs - ours for ours, theirs in zip(left, right, strict=True)]
    return crossed_estimate(differences, least_variance=least)


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


def _table(outcomes: Outcomes) -> Group:
    """Return outcomes as an array; NaN if an outcome is None."""
    return np.array([[np.nan if share is None else float(share) for share in seeds] for seeds in outcomes.values()])


def _shares(left: Group, right: Group, paired_seeds: bool) -> tuple[Group, Group]:
    """Return both tables without seeds that have no judged answer, their other gaps filled."""
    judged = [~np.isnan(table).all(axis=0) for table in (left, right)]
    if paired_seeds:
        judged = [judged[0] & judged[1]] * 2
    return fill_gaps(left[:, judged[0]]), fill_gaps(right[:, judged[1]])


def _spread(differences: Float[np.ndarray, " prompts"]) -> float:
    """Return the standard deviation σ of paired differences.

    Half a prompt is added each way, so that the interval never collapses to a point.
    """
    n = len(differences)
    mean_square = (float((differences**2).sum()) + 1) / (n + 2)
    return sqrt(max(0.0, mean_square - (float(differences.sum()) / (n + 2)) ** 2))
