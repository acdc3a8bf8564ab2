"""Closed-form 95 % intervals of a rate, of a difference of two rates, and of a mean over seeds.

wilson               independent answers, one per prompt
clustered            several answers per prompt, which are not independent
newcombe             a difference of two rates on different prompts
student_interval     one value per seed
seeds_and_prompts    one interval over prompts per seed, all seeds on the same prompts

What has no closed form is in `bootstrap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


class Interval(NamedTuple):
    """An estimate with a 95 % interval, and its sample size `n`. All values are None if nothing was judged."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def wilson(hits: int, n: int) -> Interval:
    """Return a rate with Wilson's score interval.

        (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n)

    Args:
        hits: Number of hits, 0 ≤ hits ≤ n.
        n: Number of trials; 0 gives an interval without values.

    Raises:
        ValueError: `hits` is negative or exceeds `n`.

    Source: Wilson 1927; Brown, Cai and DasGupta 2001, who recommend it for small n.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"hits must be between 0 and n, got {hits} of {n}")
    if n == 0:
        return Interval(None, None, None, 0)
    return Interval(hits / n, *_wilson_bounds(hits / n, n), n)


def clustered_standard_error(clusters: Sequence[Sequence[float]]) -> float:
    """Return the standard error of the mean over all answers, where answers to one prompt are correlated.

        SE² = Var(s)/n + 1/n² · Σ_c Σ_i Σ_{j≠i} (s_ic − s̄)(s_jc − s̄)

    Args:
        clusters: Scores of the answers to each prompt; at least two answers in all.

    Source: Miller 2024, "Adding Error Bars to Evals" (arXiv 2411.00640), the section on clustered questions, with the
    answers to one prompt as a cluster; Var with n − 1, as in that paper.
    """
    scores = [score for cluster in clusters for score in cluster]
    n, mean = len(scores), sum(scores) / len(scores)
    squares = sum((score - mean) ** 2 for score in scores)
    # (Σ d)² is Σ d² + Σ_i Σ_{j≠i} d_i d_j
    products = sum(sum(score - mean for score in cluster) ** 2 for cluster in clusters) - squares
    return sqrt(max(0.0, squares / (n - 1) / n + products / n**2))


def clustered(clusters: Sequence[Sequence[bool]]) -> Interval:
    """Return the rate over all answers, with Wilson's interval at the effective number of answers.

        n_eff = p(1 − p) / SE²

    Answers to one prompt that all agree count about once per prompt; independent answers count fully. If all answers
    hit, or none does, n_eff is the number of prompts. With one answer per prompt this is `wilson`.

    Args:
        clusters: Whether each answer hit, one list per prompt; prompts without an answer are left out.

    Returns:
        The interval; its n counts prompts.

    Source: `clustered_standard_error`; the effective n in Wilson's interval: Korn and Graubard 1998, Dean and Pagano
    2015, for surveys.
    """
    prompts = [cluster for cluster in clusters if cluster]
    num_answers, hits = sum(map(len, prompts)), sum(map(sum, prompts))
    if num_answers == len(prompts):
        return wilson(hits, num_answers)
    rate, error = hits / num_answers, clustered_standard_error(prompts)
    effective = rate * (1 - rate) / error**2 if 0 < hits < num_answers and error else float(len(prompts))
    return Interval(rate, *_wilson_bounds(rate, min(effective, num_answers)), len(prompts))


def _wilson_bounds(rate: float, n: float) -> tuple[float, float]:
    """Return Wilson's bounds; n may be an effective number."""
    center = rate + Z95**2 / (2 * n)
    spread = Z95 * sqrt(rate * (1 - rate) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    # Rounding must not leave the rate outside: at 0 of 3 the lower bound comes out as 5e-17.
    low, high = min(rate, (center - spread) / scale), max(rate, (center + spread) / scale)
    return max(0.0, low), min(1.0, high)


def newcombe(left: Interval, right: Interval) -> Interval:
    """Return the difference of two rates on different prompts, left − right, from their own intervals.

        d − √((p₁ − l₁)² + (u₂ − p₂)²),  d + √((u₁ − p₁)² + (p₂ − l₂)²)

    Args:
        left: A rate in [0, 1] with its bounds.
        right: The rate to subtract, with its bounds; if either has no value, there is no difference.

    Returns:
        The interval, in [−1, 1]; its n counts the prompts of both.

    Source: Newcombe 1998, method 10 (hybrid score), where the bounds are Wilson's.
    """
    (p1, low1, high1, n1), (p2, low2, high2, n2) = left, right
    if p1 is None or low1 is None or high1 is None or p2 is None or low2 is None or high2 is None:
        return Interval(None, None, None, n1 + n2)
    below = sqrt((p1 - low1) ** 2 + (high2 - p2) ** 2)
    above = sqrt((high1 - p1) ** 2 + (p2 - low2) ** 2)
    return Interval(p1 - p2, p1 - p2 - below, p1 - p2 + above, n1 + n2)


def student_interval(values: Sequence[float]) -> Interval:
    """Return the mean over seeds with Student's t interval, which covers the mean of further seeds.

        x̄ ± t₀.₉₇₅ · s/√k, with s² = Σ (x − x̄)² / (k − 1) and k − 1 degrees of freedom

    Args:
        values: One number per seed, of any range; the bounds are not clipped to it.

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

    margin = float(t.ppf(0.975, k - 1)) * sqrt(sum((value - mean) ** 2 for value in values) / (k - 1) / k)
    return Interval(mean, mean - margin, mean + margin, k)


def seeds_and_prompts(intervals: Sequence[Interval], *, lowest: float = 0.0, highest: float = 1.0) -> Interval | None:
    """Return the mean over seeds, with an interval that spans seeds and prompts.

        x̄ ± (t₀.₉₇₅ · s/√k + w̄)

    s is the standard deviation over the k seeds, t Student's quantile with k − 1 degrees of freedom, and w̄ the mean
    half-width of the seeds' own intervals. w̄ is not divided by √k, because the seeds answer the same prompts. Adding
    the two terms is conservative.

    Args:
        intervals: One per seed, each over the same prompts.
        lowest: Least value that the mean can have; the lower bound is clipped to it.
        highest: Largest value that the mean can have.

    Returns:
        The interval; its n is the least n of a seed. None for fewer than two seeds, or if a seed has no value.

    Source: ours.
    """
    from scipy.stats import t

    rows = [
        (value, low, high)
        for value, low, high, _ in intervals
        if value is not None and low is not None and high is not None
    ]
    k = len(rows)
    if k < 2 or k < len(intervals):
        return None
    mean = sum(value for value, _, _ in rows) / k
    variance = sum((value - mean) ** 2 for value, _, _ in rows) / (k - 1)
    half_width = sum((high - low) / 2 for _, low, high in rows) / k
    margin = float(t.ppf(0.975, k - 1)) * sqrt(variance / k) + half_width
    return Interval(
        mean, max(lowest, mean - margin), min(highest, mean + margin), min(interval.n for interval in intervals)
    )
