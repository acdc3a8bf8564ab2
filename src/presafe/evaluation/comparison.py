"""Two systems on the same prompts: the paired difference, its interval, its p-value, and what n could have shown.

    d_i         = right_i − left_i, each the share of a prompt's judged answers that count
    difference  = mean of d_i over the n prompts with a judged answer of both

One seed and one answer a side, so that each d_i is −1, 0 or 1:

    interval    95 % percentile bootstrap over prompts, drawn from the four cells (both, left only, right only, none)
                with half a prompt more in each, so that where nothing was seen an interval is still no point
    p           exact McNemar test
    detectable  (z₀.₉₇₅ + z₀.₈) · σ / √n, with σ² from the same cells: the true difference that a test at 5 % finds
                four times in five

One seed a side and several answers a prompt, so that d_i lies between them:

    interval    difference ± t · se with se = σ/√n and n − 1 degrees of freedom, p from t = difference / se,
                detectable (t₀.₉₇₅ + t₀.₈) · se: the prompts are the sample, and answers to one are not independent

Several seeds, on one side or both (a seed is a training):

    se²         = s²/k of the seeds' means, of each side that has several, + σ²/n of the prompts; where a seed is one
                training on both sides (the same rows in the same order), s²/k is of the seeds' differences
    interval    difference ± t · se, p from t = difference / se, detectable (t₀.₉₇₅ + t₀.₈) · se, all with the smaller
                k − 1 degrees of freedom: wide with few seeds, because little is then known of another seed

Sources: McNemar 1947; Efron and Tibshirani 1993, chapter 13; Agresti and Min 2005 for the half prompts; Holm 1979;
Miller 2024 (arXiv 2411.00640) for pairing the means of several answers, prompt by prompt. The sum over seeds and
prompts is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Literal, NamedTuple

import numpy as np

from presafe.evaluation.repeated import by_prompt
from presafe.intervals import Z95
from presafe.records import PROBLEMS, Difference, Expect, Response, Thinking, Verdict

Outcomes = Mapping[str, Sequence[float | None]]
"""Share of each prompt's judged answers that count, one entry a seed, by prompt id; None where none could be judged."""

_DRAWS = 10_000
_POWER_Z = Z95 + 0.8416212335729143
"""z of a two-sided 5 % test plus z of a power of 80 %."""


Kind = Expect | Literal["attack"]
"""What is expected of prompts; "attack" for harmful ones whose answers a judge of harm called safe or unsafe."""

LEADING: dict[Kind, tuple[str, Verdict]] = {
    "refuse": ("refusal_rate", "refuse"),
    "attack": ("attack_success_rate", "unsafe"),
    "comply": ("over_refusal_rate", "refuse"),
    **dict.fromkeys(PROBLEMS, ("accuracy", "right")),
}
"""What is compared on prompts of each kind, and the verdict that counts. Unjudged problems are not solved."""


class AnsweredSuites(NamedTuple):
    """One system's answers: by suite the kind of its prompts, and what counts of the answers."""

    system: str
    thinking: Thinking
    suites: dict[str, tuple[Kind, Outcomes]]


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


def compare(left: Outcomes, right: Outcomes, *, seed: int = 0, paired_seeds: bool = False) -> Comparison | None:
    """The paired difference of two systems on one suite.

    Args:
        left: The system compared against.
        right: The system of interest, on the same prompts.
        seed: Seed of the bootstrap.
        paired_seeds: Whether the k-th entries of both sides belong together, too.

    Returns:
        None where no prompt has a judged answer of both.

    Raises:
        ValueError: the prompts differ, or the number of seeds that are paired.
    """
    if left.keys() != right.keys():
        raise ValueError("paired systems must have answered the same prompts")
    a, b = _Side.of(left), _Side.of(right)
    both = ~np.isnan(a.shares) & ~np.isnan(b.shares)
    n = int(both.sum())
    if n == 0:
        return None
    d = b.shares[both] - a.shares[both]
    only_left, only_right = int((d < 0).sum()), int((d > 0).sum())
    # Half a prompt either way: of nothing seen, nothing is certain.
    sigma = sqrt(max(0.0, (float((d**2).sum()) + 1) / (n + 2) - (float(d.sum()) / (n + 2)) ** 2))
    sides = [_Side.of_differences(left, right)] if paired_seeds else [a, b]
    if seeds := [side for side in sides if side.num_seeds > 1]:
        se = sqrt(sum(side.variance_of_mean(both) for side in seeds) + sigma**2 / n)
        freedom = min(side.num_seeds for side in seeds) - 1
        low, high, p, detectable = _student(float(d.mean()), se, freedom)
    elif set(np.abs(d)) <= {0.0, 1.0}:
        low, high = _bootstrap(only_left, only_right, n, seed)
        p = mcnemar(only_left, only_right)
        detectable = _POWER_Z * sigma / sqrt(n)
    else:
        low, high, p, detectable = _student(float(d.mean()), sigma / sqrt(n), max(1, n - 1))
    return Comparison(
        left=float(a.shares[both].mean()),
        right=float(b.shares[both].mean()),
        difference=float(d.mean()),
        low=low,
        high=high,
        p=p,
        only_left=only_left,
        only_right=only_right,
        n=n,
        num_left_out=len(left) - n,
        detectable=detectable if detectable <= 1 else None,
    )


def kind_of(answers: Sequence[Sequence[Response]], expect: Expect) -> Kind:
    """What is compared of one suite's answers: of harmful prompts what their judge says, refusals or harm."""
    by_harm = any(response.verdict in ("safe", "unsafe") for seed in answers for response in seed)
    return "attack" if expect == "refuse" and by_harm else expect


def outcomes(answers: Sequence[Sequence[Response]], expect: Kind) -> Outcomes:
    """What counts of one suite's answers.

    Args:
        answers: One list of responses a seed, all to the same prompts, each as often as it was sampled.
        expect: What is expected of the prompts, as `kind_of` says.
    """
    counts = LEADING[expect][1]

    def read(said: Sequence[Response]) -> float | None:
        judged = [each.verdict == counts for each in said if each.verdict != "unjudged" or expect in PROBLEMS]
        return sum(judged) / len(judged) if judged else None

    by_seed = [{said[0].prompt_id: read(said) for said in by_prompt(seed)} for seed in answers]
    return {name: tuple(seed[name] for seed in by_seed) for name in by_seed[0]}


def differences(
    pairs: Sequence[tuple[AnsweredSuites, AnsweredSuites]], *, paired_seeds: bool = False
) -> list[Difference]:
    """Every pair (against, system) on every suite that both answered, p corrected over all of them.

    Args:
        pairs: Systems as they are compared.
        paired_seeds: As in `compare`; the two modes of one system are the same trainings, whatever it says.

    Raises:
        ValueError: as `compare`, within a pair.
    """
    found: list[tuple[AnsweredSuites, AnsweredSuites, str, Comparison]] = []
    for left, right in pairs:
        paired = paired_seeds or (left.system == right.system and left.thinking != right.thinking)
        for suite in (name for name in left.suites if name in right.suites):
            comparison = compare(left.suites[suite][1], right.suites[suite][1], paired_seeds=paired)
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
            metric=LEADING[right.suites[suite][0]][0],
            value=comparison.right,
            value_against=comparison.left,
            difference=comparison.difference,
            low=comparison.low,
            high=comparison.high,
            p=comparison.p,
            p_holm=p_holm,
            n=comparison.n,
            num_left_out=comparison.num_left_out,
            num_seeds=max(len(next(iter(side.suites[suite][1].values()))) for side in (left, right)),
            detectable=comparison.detectable,
        )
        for (left, right, suite, comparison), p_holm in zip(found, corrected, strict=True)
    ]


def between_modes(systems: Sequence[AnsweredSuites]) -> list[tuple[AnsweredSuites, AnsweredSuites]]:
    """Every system that was measured in both CoT modes, as a pair: on, and off compared with it (paper, Table 7)."""
    modes = {(each.system, each.thinking): each for each in systems}
    return [
        (on, modes[system, "off"])
        for (system, thinking), on in modes.items()
        if thinking == "on" and (system, "off") in modes
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


class _Side(NamedTuple):
    """prompts × seeds, the share of answers that count or a difference of two, NaN where none could be judged."""

    answers: np.ndarray

    @classmethod
    def of(cls, outcomes: Outcomes) -> _Side:
        return cls(_without_silent(_table(outcomes)))

    @classmethod
    def of_differences(cls, left: Outcomes, right: Outcomes) -> _Side:
        """Right minus left, seed by seed."""
        a, b = _table(left), _table(right)
        if a.shape != b.shape:
            raise ValueError("paired systems must have the same seeds")
        return cls(_without_silent(b - a))

    @property
    def num_seeds(self) -> int:
        return int(self.answers.shape[1])

    @property
    def shares(self) -> np.ndarray:
        """Of each prompt, over its judged answers."""
        judged = ~np.isnan(self.answers)
        hits = np.where(judged, self.answers, 0).sum(axis=1)
        return np.where(judged.any(axis=1), hits / np.maximum(judged.sum(axis=1), 1), np.nan)

    def variance_of_mean(self, prompts: np.ndarray) -> float:
        """s²/k of the seeds' means over some prompts; 0 for one seed."""
        means = np.nanmean(self.answers[prompts], axis=0)
        means = means[~np.isnan(means)]
        return float(means.var(ddof=1)) / len(means) if len(means) > 1 else 0.0


def _table(outcomes: Outcomes) -> np.ndarray:
    return np.array([[np.nan if each is None else float(each) for each in seeds] for seeds in outcomes.values()])


def _without_silent(answers: np.ndarray) -> np.ndarray:
    """Without the seeds that have no verdict, which say nothing."""
    kept: np.ndarray = answers[:, ~np.isnan(answers).all(axis=0)]
    return kept


def _bootstrap(only_left: int, only_right: int, n: int, seed: int) -> tuple[float, float]:
    cells = np.array([only_left + 0.5, only_right + 0.5, n - only_left - only_right + 1])
    draws = np.random.default_rng(seed).multinomial(n, cells / cells.sum(), size=_DRAWS)
    low, high = np.percentile((draws[:, 1] - draws[:, 0]) / n, [2.5, 97.5])
    return float(low), float(high)


def _student(difference: float, se: float, freedom: int) -> tuple[float, float, float, float]:
    """low, high, p and detectable by Student's t."""
    from scipy.stats import t

    reach = float(t.ppf(0.975, freedom)) * se
    return (
        max(-1.0, difference - reach),
        min(1.0, difference + reach),
        float(2 * t.sf(abs(difference) / se, freedom)),
        reach + float(t.ppf(0.8, freedom)) * se,
    )
