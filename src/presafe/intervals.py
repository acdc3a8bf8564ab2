"""Intervals around a rate, and around a mean of values in [0, 1]. Pure functions.

wilson      independent answers, one a prompt
clustered   several answers a prompt, which are not independent
bootstrap   a value a prompt that is neither 0 nor 1
newcombe    a difference of two rates
over_seeds  a value a seed
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


class Interval(NamedTuple):
    """An estimate with a 95 % interval, and the number it rests on. All None where nothing was judged."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def wilson(hits: int, n: int) -> Interval:
    """A rate with Wilson's score interval at 95 %.

        (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n)

    Args:
        hits: How often it happened, 0 ≤ hits ≤ n.
        n: How many were looked at; 0 gives an interval without values.

    Source: Wilson 1927; Brown, Cai and DasGupta 2001, who recommend it for small n.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"hits must be between 0 and n, got {hits} of {n}")
    if n == 0:
        return Interval(None, None, None, 0)
    return Interval(hits / n, *_score_bounds(hits / n, n), n)


def clustered_standard_error(clusters: Sequence[Sequence[float]]) -> float:
    """Standard error of the mean over all answers, where the answers of one prompt lie near one another.

        SE² = Var(s)/n + 1/n² · Σ_c Σ_i Σ_{j≠i} (s_ic − s̄)(s_jc − s̄)

    Args:
        clusters: The scores of each prompt's answers; at least two answers in all.

    Source: Miller 2024, "Adding Error Bars to Evals" (arXiv 2411.00640), the section on clustered questions, with the
    answers to one prompt as a cluster; Var with n − 1, as there.
    """
    scores = [score for cluster in clusters for score in cluster]
    n, mean = len(scores), sum(scores) / len(scores)
    squares = sum((score - mean) ** 2 for score in scores)
    # (Σ d)² is Σ d² + Σ_i Σ_{j≠i} d_i d_j
    products = sum(sum(score - mean for score in cluster) ** 2 for cluster in clusters) - squares
    return sqrt(max(0.0, squares / (n - 1) / n + products / n**2))


def clustered(clusters: Sequence[Sequence[bool]]) -> Interval:
    """The share of all answers that hit, with Wilson's interval at the effective number of answers.

        n_eff = p(1 − p) / SE²

    so that answers that repeat one another count about once a prompt, and independent ones as often as they are. Where
    all hit or none does, n_eff is the number of prompts. With one answer a prompt it is `wilson`.

    Args:
        clusters: Whether each answer hit, prompt by prompt; prompts without an answer are left out.

    Returns:
        The interval; its n counts prompts.

    Source: `clustered_standard_error`; the effective n in Wilson's interval: Korn and Graubard 1998, Dean and Pagano
    2015, for surveys.
    """
    found = [cluster for cluster in clusters if cluster]
    answers, hits = sum(map(len, found)), sum(map(sum, found))
    if answers == len(found):
        return wilson(hits, answers)
    rate, error = hits / answers, clustered_standard_error(found)
    effective = rate * (1 - rate) / error**2 if 0 < hits < answers and error else float(len(found))
    return Interval(rate, *_score_bounds(rate, min(effective, answers)), len(found))


def _score_bounds(rate: float, n: float) -> tuple[float, float]:
    """Wilson's bounds; n may be an effective number."""
    centre = rate + Z95**2 / (2 * n)
    spread = Z95 * sqrt(rate * (1 - rate) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    # Rounding must not leave the rate outside: at 0 of 3 the lower end comes out as 5e-17.
    low, high = min(rate, (centre - spread) / scale), max(rate, (centre + spread) / scale)
    return max(0.0, low), min(1.0, high)


def bootstrap(values: Sequence[float], *, seed: int = 0, draws: int = 2000) -> Interval:
    """The mean of values in [0, 1], with a 95 % percentile bootstrap over them.

    Half a value of 0 and half of 1 are drawn along, so that where all were alike an interval is still no point.

    Args:
        values: One a prompt; none gives an interval without values.
        seed: Seed of the draws.
        draws: Bootstrap samples.

    Source: Efron and Tibshirani 1993, chapter 13; Agresti and Min 2005 for the halves.
    """
    import numpy as np

    n = len(values)
    if n == 0:
        return Interval(None, None, None, 0)
    points = np.array([*values, 0.0, 1.0])
    chances = np.array([1.0] * n + [0.5, 0.5]) / (n + 1)
    means = np.random.default_rng(seed).multinomial(n, chances, size=draws) @ points / n
    mean, (low, high) = float(np.mean(values)), np.percentile(means, [2.5, 97.5])
    return Interval(mean, min(mean, float(low)), max(mean, float(high)), n)


def newcombe(left: Interval, right: Interval) -> Interval:
    """The difference of two rates on different prompts, left − right, from their own intervals.

        d − √((p₁ − l₁)² + (u₂ − p₂)²),  d + √((u₁ − p₁)² + (p₂ − l₂)²)

    Args:
        left, right: Rates with their bounds; without values there is no difference.

    Returns:
        The interval, in [−1, 1]; its n counts the prompts of both.

    Source: Newcombe 1998, method 10 (hybrid score), where the bounds are Wilson's.
    """
    (p1, low1, high1, n1), (p2, low2, high2, n2) = left, right
    if p1 is None or low1 is None or high1 is None or p2 is None or low2 is None or high2 is None:
        return Interval(None, None, None, n1 + n2)
    below, above = sqrt((p1 - low1) ** 2 + (high2 - p2) ** 2), sqrt((high1 - p1) ** 2 + (p2 - low2) ** 2)
    return Interval(p1 - p2, p1 - p2 - below, p1 - p2 + above, n1 + n2)


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean over seeds with Student's t interval at 95 %: another seed's mean, not another prompt's.

        x̄ ± t₀.₉₇₅ · s/√k, with s² = Σ (x − x̄)² / (k − 1) and k − 1 degrees of freedom

    Args:
        values: One number a seed, of any range; the bounds are not cut to it.

    Returns:
        The interval; its n counts seeds. One seed has no bounds.

    Source: Student 1908.
    """
    k = len(values)
    if k == 0:
        return Interval(None, None, None, 0)
    mean = sum(values) / k
    if k == 1:
        return Interval(mean, None, None, 1)
    from scipy.stats import t

    reach = float(t.ppf(0.975, k - 1)) * sqrt(sum((value - mean) ** 2 for value in values) / (k - 1) / k)
    return Interval(mean, mean - reach, mean + reach, k)
