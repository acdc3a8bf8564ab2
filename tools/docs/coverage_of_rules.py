"""Measure how often the 95 % interval of each rule of inference holds the true difference, and write the table.

    python tools/docs/coverage_of_rules.py            about half an hour on one core; writes research/coverage.json

Two systems answer the same n prompts with k trainings each, seeds paired. An answer is refused with probability
σ(bias + effect + prompt + own prompt effect + own seed effect + own noise), all effects normal, so that rates, their
differences and their residuals are those of 0/1 answers. Rules:

    crossed              `presafe.stats.crossed`, for everything since release 0.2.0
    seeds_plus_prompts   s²/k of the seeds + σ²/n of the prompts with k − 1 degrees of freedom; for rates before
    seeds_only           Student's t over the k seeds; for J and AUROC before

The settings were written down before the first run. Under the null (effect 0) one minus the coverage is the rate at
which a true null is rejected at 5 %.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from scipy.special import expit
from scipy.stats import t

from presafe.stats.comparison import difference_estimate

FILE = Path(__file__).resolve().parents[2] / "research" / "coverage.json"
DRAWS = 4_000
BIAS, SHARED_PROMPTS = -0.3, 1.5
SPREADS = {  # standard deviations in log odds: seed, own prompt effect, noise
    "no seed effect": (0.0, 0.5, 0.5),
    "weak seed effect": (0.15, 0.5, 0.5),
    "seed effect": (0.4, 0.5, 1.0),
    "strong seed effect": (0.8, 0.5, 1.0),
    "prompts decide": (0.4, 2.0, 0.5),
}


@dataclass(frozen=True)
class Setting:
    """One simulated experiment."""

    seeds: int
    prompts: int
    spread: str
    effect: float


@dataclass(frozen=True)
class Coverage:
    """Share of experiments whose interval holds the true difference, by rule."""

    setting: Setting
    draws: int
    seed_share: float
    """Share of the variance of the mean difference that is the seeds'."""
    crossed: float
    seeds_plus_prompts: float
    seeds_only: float


SETTINGS = [Setting(*values) for values in product((3, 5), (100, 250), SPREADS, (0.0, 1.0))]


def measure(setting: Setting, *, draws: int = DRAWS, seed: int = 1) -> Coverage:
    """Return the coverage of all rules in one setting.

    Args:
        setting: The experiment.
        draws: Number of simulated experiments.
        seed: Of the simulation.
    """
    generator = np.random.default_rng(seed)
    truth = _true_difference(setting)
    hits = np.zeros(3)
    shares = []
    for _ in range(draws):
        left, right = _answers(setting, generator)
        differences = right - left
        estimate = difference_estimate([left], [right], paired_seeds=True)
        seed_variance = differences.mean(axis=0).var(ddof=1) / setting.seeds
        prompt_variance = differences.mean(axis=1).var(ddof=1) / setting.prompts
        quantile = t.ppf(0.975, setting.seeds - 1)
        error = abs(differences.mean() - truth)
        hits += (
            estimate.low <= truth <= estimate.high,
            error <= quantile * np.sqrt(seed_variance + prompt_variance),
            error <= quantile * np.sqrt(seed_variance),
        )
        shares.append(seed_variance / (seed_variance + prompt_variance or 1))
    crossed, both, seeds_only = (round(float(rate), 4) for rate in hits / draws)
    return Coverage(setting, draws, round(float(np.mean(shares)), 2), crossed, both, seeds_only)


def _answers(setting: Setting, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return both systems' answers of one experiment, prompts × seeds."""
    n, k = setting.prompts, setting.seeds
    shared = generator.normal(0, SHARED_PROMPTS, (n, 1))
    left, right = (
        generator.random((n, k)) < expit(BIAS + effect + shared + _own_effects(setting, generator, (n, k)))
        for effect in (0.0, setting.effect)
    )
    return left.astype(float), right.astype(float)


def _own_effects(setting: Setting, generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return one system's effects of seeds, prompts and noise, in log odds."""
    by_seed, by_prompt, noise = SPREADS[setting.spread]
    n, k = shape
    effects: np.ndarray = (
        generator.normal(0, by_prompt, (n, 1))
        + generator.normal(0, by_seed, (1, k))
        + generator.normal(0, noise, shape)
    )
    return effects


def _true_difference(setting: Setting) -> float:
    """Return the expected difference, by Gauss-Hermite quadrature over the sum of all normal effects."""
    if not setting.effect:
        return 0.0
    spread = np.sqrt(SHARED_PROMPTS**2 + sum(value**2 for value in SPREADS[setting.spread]))
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    rates = [weights @ expit(BIAS + effect + spread * nodes) / weights.sum() for effect in (0.0, setting.effect)]
    return float(rates[1] - rates[0])


def committed() -> list[Coverage]:
    """Return the rows of research/coverage.json."""
    rows = json.loads(FILE.read_text())["rows"]
    return [Coverage(**{**row, "setting": Setting(**row["setting"])}) for row in rows]


def table() -> str:
    """Return the committed rows as a table in Markdown."""
    lines = [
        "| seeds | prompts | seed effect | true effect | crossed | seeds + prompts | seeds only |",
        "|---" * 7 + "|",
    ]
    for row in committed():
        setting = row.setting
        kind = "none" if setting.effect == 0 else "yes"
        rates = " | ".join(f"{100 * rate:.1f} %" for rate in (row.crossed, row.seeds_plus_prompts, row.seeds_only))
        lines.append(f"| {setting.seeds} | {setting.prompts} | {setting.spread} | {kind} | {rates} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every setting and write the file."""
    rows = []
    for number, setting in enumerate(SETTINGS, start=1):
        rows.append(asdict(measure(setting)))
        print(f"{number} of {len(SETTINGS)}: {rows[-1]}", file=sys.stderr, flush=True)
    FILE.write_text(json.dumps({"schema": 1, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
