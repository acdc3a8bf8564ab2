"""Intervals around a rate. Pure functions."""

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
    rate = hits / n
    centre = rate + Z95**2 / (2 * n)
    spread = Z95 * sqrt(rate * (1 - rate) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    # Rounding must not leave the rate outside: at 0 of 3 the lower end comes out as 5e-17.
    low, high = min(rate, (centre - spread) / scale), max(rate, (centre + spread) / scale)
    return Interval(rate, max(0.0, low), min(1.0, high), n)


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
