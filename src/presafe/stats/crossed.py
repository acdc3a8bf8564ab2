"""The project's one rule of inference: an interval over seeds and prompts that are crossed.

Every seed (a training) answers every prompt, so a value x_ij belongs to prompt i and seed j, and another run of the
same experiment would draw other seeds and other prompts. For k seeds and n prompts, the variance of the mean is

    v = v_seeds + v_prompts − v_residual        v_seeds    = s² of the k seeds' means / k
                                                v_prompts  = s² of the n prompts' means / n
                                                v_residual = s² of x_ij − x_i. − x_.j + x_.. / (k n)

The residual is part of the first two, so it is subtracted once. With few seeds v_seeds is poorly known, and a normal
interval from v is too narrow. The generalized confidence interval replaces every variance by its pivot,

    V = max(v₀, v_seeds · a/χ²_a + v_prompts · b/χ²_b − v_residual · c/χ²_c)     a = k − 1, b = n − 1, c = a b

with independent χ² and a least variance v₀ (`least_variance`). Z is standard normal:

    p         = P(|Z| √V ≥ |mean|)
    interval  = mean ± h, with P(|Z| √V ≥ h) = .05

Both are integrals over three densities, computed by Gauss-Legendre quadrature: nothing is drawn at random.

A statistic is a sum of means over groups of prompts that share the seeds. Youden's J has two groups, the harmful
prompts and, with a minus sign, the harmless ones. An AUROC has two groups of placements (`auroc_groups`). Groups and
sides are independent, so their variances add, with Satterthwaite's degrees of freedom.

Sources: Weerahandi 1993 for generalized intervals; Burdick, Borror and Montgomery 2005, "Design and Analysis of Gauge
R&R Studies", for the mean of the crossed model; Satterthwaite 1946; DeLong, DeLong and Clarke-Pearson 1988 for
placements; Yates 1933 for missing cells. Its use for seeds and prompts is ours; `tools/docs/coverage_of_rules.py`
measures its coverage beside the two rules that it replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import exp, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from presafe.stats.auroc import placements

if TYPE_CHECKING:
    from jaxtyping import Float

    Group = Float[np.ndarray, "prompts seeds"]
    """Values of one group of prompts. The statistic is the sum of the groups' means."""

MANY = 20
"""Degrees of freedom from which a density is narrow enough for few nodes."""

FEW_NODES, MANY_NODES = 16, 64
"""Quadrature nodes of a density. A p-value above 1e-5 is right to a thousandth of itself."""

_TAIL = 1e-9
"""Probability that the quadrature leaves out at either end of a density."""

_SMALLEST, _LARGEST = -4.0, 5.0
"""Bounds of log(margin / √(v_seeds + v_prompts)); with one degree of freedom it is log 12.7."""


class Part(NamedTuple):
    """One component of a variance, with its degrees of freedom."""

    variance: float
    freedom: float


NONE = Part(0.0, 0)
"""The part of a side with one seed that a second seed would have shown."""


class Estimate(NamedTuple):
    """An estimate with its 95 % interval, two-sided p-value against zero, and the detectable difference.

    `detectable` is the true value that a test at 5 % finds four times in five.
    """

    value: float
    low: float
    high: float
    p: float
    detectable: float


def crossed_estimate(*sides: Sequence[Group], least_variance: float = 0.0) -> Estimate:
    """Return the sum of all groups' means, with its interval over seeds and prompts.

    Args:
        *sides: One or two systems. Each is a list of groups, arrays of prompts × seeds; a group holds the same prompts
            on every side, and a side has the same seeds in every group. The seeds of two sides are independent: if
            they belong together, subtract the sides first and pass one. A side with one seed has no variance over
            seeds.
        least_variance: Lower bound of V, so that no interval collapses to a point.

    Raises:
        ValueError: a group has fewer than two prompts, other prompts than its counterpart, or a value that is missing
            or not finite (`fill_gaps`).
    """
    for groups in zip(*sides, strict=True):
        if len({len(group) for group in groups}) > 1 or len(groups[0]) < 2:
            raise ValueError("a group must hold the same prompts on every side, at least two")
    if any(not np.isfinite(group).all() for side in sides for group in side):
        raise ValueError("every prompt and seed needs a finite value")
    value = float(sum(group.mean() for side in sides for group in side))
    pivot = _Pivot(
        _sum(map(_seed_part, sides)),
        _sum(_prompt_part(groups) for groups in zip(*sides, strict=True)),
        _sum(_residual_part(group) for side in sides for group in side),
        least_variance,
    )
    margin = pivot.margin(0.05)
    return Estimate(
        value=value,
        low=value - margin,
        high=value + margin,
        p=pivot.tail(abs(value)),
        detectable=margin + pivot.margin(0.4),
    )


def auroc_groups(positive: Group, negative: Group) -> tuple[Group, Group]:
    """Return the two groups whose means add up to the AUROC of every seed.

    Args:
        positive: Scores of the class that should score higher, prompts × seeds.
        negative: Scores of the other class.

    Returns:
        The placements of the positives, whose mean is the AUROC, and those of the negatives less the AUROC, whose mean
        is zero: they add their prompts' variance, and nothing to the value.
    """
    columns = [placements(ups, downs) for ups, downs in zip(positive.T, negative.T, strict=True)]
    above, below = (np.stack(parts, axis=1) for parts in zip(*columns, strict=True))
    return above, below - above.mean(axis=0)


def fill_gaps(group: Group) -> Group:
    """Return a group whose gaps hold what the means of their prompt and of their seed predict.

    Filled values add nothing to the residual, so that an interval becomes wider with many gaps, not narrower.

    Args:
        group: Prompts × seeds, NaN where there is no value.

    Raises:
        ValueError: a prompt or a seed has no value at all.
    """
    gaps = np.isnan(group)
    if gaps.all(axis=0).any() or gaps.all(axis=1).any():
        raise ValueError("every prompt and every seed needs a value")
    values = np.where(gaps, np.nanmean(group), group)
    for _ in range(100 if gaps.any() else 0):
        predicted = values.mean(axis=1, keepdims=True) + values.mean(axis=0, keepdims=True) - values.mean()
        values = np.where(gaps, predicted, group)
    return values


def _seed_part(side: Sequence[Group]) -> Part:
    """Return s²/k of the seeds' values of the statistic."""
    by_seed = np.sum([group.mean(axis=0) for group in side], axis=0)
    k = len(by_seed)
    return Part(float(by_seed.var(ddof=1)) / k, k - 1) if k > 1 else NONE


def _prompt_part(groups: Sequence[Group]) -> Part:
    """Return s²/n of the prompts' means, summed over the sides prompt by prompt."""
    by_prompt = np.sum([group.mean(axis=1) for group in groups], axis=0)
    return Part(float(by_prompt.var(ddof=1)) / len(by_prompt), len(by_prompt) - 1)


def _residual_part(group: Group) -> Part:
    """Return the residual's s²/(kn) of one group."""
    n, k = group.shape
    freedom = (n - 1) * (k - 1)
    if not freedom:
        return NONE
    residuals = group - group.mean(axis=1, keepdims=True) - group.mean(axis=0, keepdims=True) + group.mean()
    return Part(float((residuals**2).sum()) / freedom / (n * k), freedom)


def _sum(parts: Iterable[Part]) -> Part:
    """Return the sum of independent parts, with Satterthwaite's degrees of freedom."""
    present = [part for part in parts if part.freedom]
    total = sum(part.variance for part in present)
    if not total:
        return Part(0.0, min((part.freedom for part in present), default=0))
    return Part(total, total**2 / sum(part.variance**2 / part.freedom for part in present))


class _Pivot(NamedTuple):
    """The distribution of Z · √V."""

    seeds: Part
    prompts: Part
    residual: Part
    least_variance: float

    def tail(self, distance: float) -> float:
        """Return P(|Z| √V ≥ distance), the two-sided p-value of an estimate at this distance from zero."""
        from scipy.special import ndtr

        if distance == 0:
            return 1.0
        seeds, seed_weights = _pivoted(self.seeds)
        prompts, prompt_weights = _pivoted(self.prompts)
        residual, residual_weights = _pivoted(self.residual)
        variances = np.maximum(seeds[:, None, None] + prompts[None, :, None] - residual, self.least_variance)
        with np.errstate(divide="ignore"):
            tails = 2 * ndtr(-distance / np.sqrt(variances))
        return float(np.einsum("a,b,c,abc->", seed_weights, prompt_weights, residual_weights, tails))

    def margin(self, level: float) -> float:
        """Return the distance h with P(|Z| √V ≥ h) = level; 0 if nothing varies."""
        from scipy.optimize import brentq

        scale = sqrt(max(self.seeds.variance + self.prompts.variance, self.least_variance))
        if not scale:
            return 0.0

        def excess(log_distance: float) -> float:
            return self.tail(scale * exp(log_distance)) - level

        if excess(_SMALLEST) <= 0:
            return scale * exp(_SMALLEST)
        return scale * exp(float(brentq(excess, _SMALLEST, _LARGEST, xtol=1e-6)))


def _pivoted(part: Part) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """Return values of variance · f/χ²_f, f degrees of freedom, and their weights, which sum to one."""
    if not part.variance:
        return np.zeros(1), np.ones(1)
    factors, weights = _inverse_chi_square(part.freedom)
    return part.variance * factors, weights


@lru_cache(maxsize=1024)
def _inverse_chi_square(freedom: float) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """Return nodes of f/χ²_f and their weights, by Gauss-Legendre quadrature over log χ²."""
    from scipy.stats import chi2

    low, high = np.log(chi2.ppf(_TAIL, freedom)), np.log(chi2.isf(_TAIL, freedom))
    nodes, weights = np.polynomial.legendre.leggauss(FEW_NODES if freedom >= MANY else MANY_NODES)
    logs = (low + high) / 2 + (high - low) / 2 * nodes
    masses = weights * np.exp(chi2.logpdf(np.exp(logs), freedom) + logs)
    return freedom / np.exp(logs), masses / masses.sum()
