"""95 % intervals by resampling, where there is no closed form.

mean_interval        mean of values in [0, 1], one per prompt; percentile interval
difference_bounds    difference of two systems on the same prompts, from counts; percentile interval
ranking_interval     how well scores separate two classes, each class resampled on its own; percentile interval
statistic_interval   any statistic of rows that are resampled together; percentile interval
resample_counts      how often each value is drawn, for a statistic that is linear in the values

All take a seed and give the same bounds each time. Source: Efron and Tibshirani 1993, chapter 13.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from presafe.stats.intervals import Interval

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int

Row = TypeVar("Row")

_LEVELS = (2.5, 97.5)
"""Percentiles that bound a 95 % interval."""


def resample_counts(
    weights: Float[np.ndarray, " values"], n: int, draws: int, generator: np.random.Generator
) -> Int[np.ndarray, "draws values"]:
    """Draw n values with replacement, `draws` times over, and return how often each value was drawn.

    Args:
        weights: Relative chance of each value, at least 0.
        n: Values in one draw, at least 1.
        draws: Number of draws.
        generator: Source of randomness.
    """
    counts: Int[np.ndarray, "draws values"] = generator.multinomial(n, weights / weights.sum(), size=draws)
    return counts


def mean_interval(values: Sequence[float], *, seed: int = 0, draws: int = 2000) -> Interval:
    """Return the mean of values in [0, 1], with a percentile interval over them.

    Half a value of 0 and half a value of 1 are added, so that the interval has a width even if all values are equal.

    Args:
        values: One per prompt; none gives an interval without values.
        seed: Seed of the draws.
        draws: Bootstrap samples.

    Source: Agresti and Min 2005 for the halves.
    """
    import numpy as np

    n = len(values)
    if n == 0:
        return Interval(None, None, None, 0)
    low, high = _mean_bounds(np.array([*values, 0.0, 1.0]), np.array([1.0] * n + [0.5, 0.5]), n, seed=seed, draws=draws)
    mean = float(np.mean(values))
    return Interval(mean, min(mean, low), max(mean, high), n)


def difference_bounds(
    only_left: int, only_right: int, n: int, *, seed: int = 0, draws: int = 10_000
) -> tuple[float, float]:
    """Return the 95 % bounds of the difference of two rates on the same prompts, right − left.

    Half a prompt is added to each of the four cells (both hit, only left, only right, neither), so that the interval
    has a width even if no prompt differs.

    Args:
        only_left: Prompts on which only the left system hits.
        only_right: Prompts on which only the right system hits.
        n: Prompts in all.
        seed: Seed of the draws.
        draws: Bootstrap samples.

    Source: Agresti and Min 2005 for the halves.
    """
    import numpy as np

    # The two cells in which both agree have the difference 0 and stand as one.
    weights = np.array([only_left + 0.5, only_right + 0.5, n - only_left - only_right + 1])
    return _mean_bounds(np.array([-1.0, 1.0, 0.0]), weights, n, seed=seed, draws=draws)


def _mean_bounds(
    values: Float[np.ndarray, " values"], weights: Float[np.ndarray, " values"], n: int, *, seed: int, draws: int
) -> tuple[float, float]:
    """Return the percentile bounds of the mean of n weighted values."""
    import numpy as np

    means = resample_counts(weights, n, draws, np.random.default_rng(seed)) @ values / n
    low, high = np.percentile(means, _LEVELS)
    return float(low), float(high)


def ranking_interval(
    statistic: Callable[[Sequence[float], Sequence[float]], float],
    positive: Sequence[float],
    negative: Sequence[float],
    *,
    seed: int = 0,
    draws: int = 500,
) -> Interval:
    """Return how well scores separate two classes, with a percentile interval; each class is resampled on its own.

    Args:
        statistic: `auroc` or `tpr_at_fpr_10`.
        positive: Scores of the prompts that should be refused; at least one.
        negative: Scores of the other prompts; at least one.
        seed: Seed of the draws.
        draws: Bootstrap samples.
    """
    rng = random.Random(seed)
    values = sorted(
        statistic(rng.choices(positive, k=len(positive)), rng.choices(negative, k=len(negative))) for _ in range(draws)
    )
    low, high = values[int(0.025 * draws)], values[int(0.975 * draws) - 1]
    return Interval(statistic(positive, negative), low, high, len(positive) + len(negative))


def statistic_interval(
    statistic: Callable[[Sequence[Row]], float], rows: Sequence[Row], *, seed: int = 0, draws: int = 1000
) -> Interval:
    """Return a statistic of rows, with a percentile interval over them.

    Args:
        statistic: May return NaN where it is undefined; such draws are left out of the percentiles.
        rows: What is resampled.
        seed: Seed of the draws.
        draws: Bootstrap samples.

    Returns:
        The interval, without values if there are no rows or the statistic is undefined for them.
    """
    import numpy as np

    value = statistic(rows) if rows else float("nan")
    if np.isnan(value):
        return Interval(None, None, None, len(rows))
    rng = np.random.default_rng(seed)
    resampled = [statistic([rows[i] for i in rng.integers(len(rows), size=len(rows))]) for _ in range(draws)]
    low, high = np.nanpercentile(resampled, _LEVELS)
    return Interval(value, float(low), float(high), len(rows))
