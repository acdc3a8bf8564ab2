"""Two systems on the same prompts: the paired difference, its interval, its p-value, and what n could have shown.

    d_i         = right_i − left_i, each the share of a prompt's answers that count (over seeds; with one, 0 or 1)
    difference  = mean of d_i
    interval    95 % percentile bootstrap; every draw resamples prompts and, where there are several, seeds
    p           exact McNemar test with one seed; with several, sign-flip permutation of the d_i, of which McNemar's
                is the case of one seed (it asks about prompts and takes the seeds as they are)
    detectable  (z₀.₉₇₅ + z₀.₈) · sd(d) / √n: the smallest true difference found with a chance of 80 %

Sources: McNemar 1947; Efron and Tibshirani 1993, chapters 13 and 15; Holm 1979.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np

from presafe.records import Difference, Expect, Response, Thinking, Verdict

Outcomes = Mapping[str, Sequence[bool | None]]
"""What counts of each prompt's answers, one entry a seed, by prompt id; None where an answer could not be judged."""

_DRAWS = 2000
_POWER_Z = 1.959963984540054 + 0.8416212335729143
"""z of a two-sided 5 % test plus z of a power of 80 %."""


METRICS: dict[Expect, tuple[str, Verdict]] = {
    "refuse": ("refusal_rate", "refuse"),
    "comply": ("over_refusal_rate", "refuse"),
    "answer": ("accuracy", "right"),
}
"""What is compared on prompts of each kind, and the verdict that counts. Unjudged problems are not solved."""


class AnsweredSuites(NamedTuple):
    """One system's answers: by suite what is expected of its prompts, and what counts of the answers."""

    system: str
    thinking: Thinking
    suites: dict[str, tuple[Expect, Outcomes]]


class Comparison(NamedTuple):
    """One suite and metric, right against left. Rates are over the `n` prompts that both have judged answers to."""

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


def compare(left: Outcomes, right: Outcomes, *, seed: int = 0) -> Comparison | None:
    """The paired difference of two systems on one suite.

    Args:
        left: The system compared against.
        right: The system of interest, on the same prompts.
        seed: Seed of the bootstrap and of the permutations.

    Returns:
        None where no prompt has a judged answer of both.

    Raises:
        ValueError: the prompts differ.
    """
    if left.keys() != right.keys():
        raise ValueError("paired systems must have answered the same prompts")
    ids = [name for name in left if None not in (_share(left[name]), _share(right[name]))]
    if not ids:
        return None
    a, b = (_matrix(side, ids) for side in (left, right))
    shares = np.nanmean(a, axis=1), np.nanmean(b, axis=1)
    d = shares[1] - shares[0]
    rng = np.random.default_rng(seed)
    low, high = _bootstrap(a, b, rng)
    is_single = a.shape[1] == b.shape[1] == 1
    only_left, only_right = int((d < 0).sum()), int((d > 0).sum())
    return Comparison(
        left=float(shares[0].mean()),
        right=float(shares[1].mean()),
        difference=float(d.mean()),
        low=low,
        high=high,
        p=mcnemar(only_left, only_right) if is_single else _sign_flips(d, rng),
        only_left=only_left,
        only_right=only_right,
        n=len(ids),
        num_left_out=len(left) - len(ids),
        detectable=_POWER_Z * float(d.std(ddof=1)) / sqrt(len(ids)) if len(ids) > 1 else None,
    )


def outcomes(answers: Sequence[Sequence[Response]], expect: Expect) -> Outcomes:
    """What counts of one suite's answers.

    Args:
        answers: One list of responses a seed, all to the same prompts.
        expect: What is expected of the prompts.
    """
    counts = METRICS[expect][1]

    def read(verdict: Verdict) -> bool | None:
        return None if verdict == "unjudged" and expect != "answer" else verdict == counts

    by_seed = [{response.prompt_id: read(response.verdict) for response in seed} for seed in answers]
    return {name: tuple(seed[name] for seed in by_seed) for name in by_seed[0]}


def differences(pairs: Sequence[tuple[AnsweredSuites, AnsweredSuites]]) -> list[Difference]:
    """Every pair (against, system) on every suite that both answered, p corrected over all of them.

    Raises:
        ValueError: a suite's prompts differ within a pair.
    """
    found: list[tuple[AnsweredSuites, AnsweredSuites, str, Comparison]] = []
    for left, right in pairs:
        for suite in (name for name in left.suites if name in right.suites):
            comparison = compare(left.suites[suite][1], right.suites[suite][1])
            if comparison:
                found.append((left, right, suite, comparison))
    corrected = holm([comparison.p for *_, comparison in found])
    return [
        Difference(
            system=right.system,
            thinking=right.thinking,
            against=left.system,
            against_thinking=left.thinking,
            suite=suite,
            metric=METRICS[right.suites[suite][0]][0],
            value=comparison.right,
            value_against=comparison.left,
            difference=comparison.difference,
            low=comparison.low,
            high=comparison.high,
            p=comparison.p,
            p_holm=p_holm,
            n=comparison.n,
            num_left_out=comparison.num_left_out,
            num_seeds=max(len(answers) for answers in right.suites[suite][1].values()),
            detectable=comparison.detectable,
        )
        for (left, right, suite, comparison), p_holm in zip(found, corrected, strict=True)
    ]


def mcnemar(only_left: int, only_right: int) -> float:
    """Exact two-sided McNemar test: the discordant pairs against a fair coin. 1 where there is none."""
    from scipy.stats import binomtest

    n = only_left + only_right
    return float(binomtest(only_left, n).pvalue) if n else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction for several tests: adjusted p-values, in the order given."""
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def _share(answers: Sequence[bool | None]) -> float | None:
    judged = [each for each in answers if each is not None]
    return sum(judged) / len(judged) if judged else None


def _matrix(side: Outcomes, ids: Sequence[str]) -> np.ndarray:
    """prompts × seeds, NaN where unjudged."""
    return np.array([[np.nan if each is None else float(each) for each in side[name]] for name in ids])


def _bootstrap(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    means = np.empty(_DRAWS)
    for draw in range(_DRAWS):
        prompts = rng.integers(len(a), size=len(a))
        sides = []
        for side in (a, b):
            seeds = rng.integers(side.shape[1], size=side.shape[1])
            drawn = side[prompts][:, seeds]
            judged = ~np.isnan(drawn)
            share = np.where(judged, drawn, 0).sum(axis=1) / np.maximum(judged.sum(axis=1), 1)
            sides.append(np.where(judged.any(axis=1), share, np.nan))
        means[draw] = np.nanmean(sides[1] - sides[0])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _sign_flips(d: np.ndarray, rng: np.random.Generator) -> float:
    flips = rng.choice([-1.0, 1.0], size=(_DRAWS * 5, len(d)))
    extreme = np.abs(flips @ d) >= abs(d.sum()) - 1e-9
    return float((extreme.sum() + 1) / (len(flips) + 1))
