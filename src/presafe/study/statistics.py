"""Statistics of a study: means over seeds, and every condition compared with the baseline.

    scores             mean and Student's interval over the k seeds of a condition (`student_interval`), of every metric
    differences        leading rates, paired by prompt and by seed (`paired_differences`), p corrected over all of them
    seed_differences   every metric, paired by seed only: mean and Student's interval of the k differences

Pure functions of the runs' records. Only seeds that both conditions have are paired. A condition that trains nothing is
the same for every seed, so its one run is paired with every run of the other condition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean
from typing import NamedTuple

from presafe.evaluation.differences import Kind, SystemOutcomes
from presafe.evaluation.differences import paired_differences as compare_pairs
from presafe.records import Difference, Score, Thinking
from presafe.stats.comparison import Outcomes
from presafe.stats.intervals import student_interval
from presafe.study.records import RunResult, SeedDifference, StudyOperatingPoint, StudyScore, TrainingCost


class Cell(NamedTuple):
    """CoT mode, suite and metric of a value."""

    thinking: Thinking
    suite: str
    metric: str


def condition_scores(results: Sequence[RunResult]) -> list[StudyScore]:
    """Return the means over the seeds of each condition, after the scores of the model as it came from the first run.

    Args:
        results: The finished runs of a study, at least one.
    """
    vanilla = [
        StudyScore(**score.model_dump(), num_seeds=0) for score in results[0].scores if score.system == "vanilla"
    ]
    means = [
        _mean_row(condition, rows)
        for condition, runs in _by_condition(results).items()
        for rows in _rows_by_cell(runs).values()
    ]
    return [*vanilla, *means]


def _mean_row(condition: str, rows: Sequence[Score]) -> StudyScore:
    """Return the mean of one cell over seeds; a single seed keeps its interval over prompts."""
    valued = [row for row in rows if row.value is not None]
    over_seeds = student_interval([row.value for row in valued if row.value is not None])
    low, high = (valued[0].low, valued[0].high) if len(valued) == 1 else (over_seeds.low, over_seeds.high)
    return StudyScore(
        **rows[0].model_dump(exclude={"system", "value", "low", "high", "n", "seed"}),
        system=condition,
        value=over_seeds.value,
        low=low,
        high=high,
        n=min(row.n for row in rows),
        seed=None,
        num_seeds=over_seeds.n,
    )


def paired_differences(results: Sequence[RunResult], baseline: str) -> list[Difference]:
    """Compare every other condition's leading rates with the baseline's, over the seeds that both have.

    Args:
        results: The finished runs of a study.
        baseline: Name of the condition to compare with.

    Raises:
        ValueError: two runs of a suite were asked different prompts.
    """
    pairs = []
    for condition, runs, baseline_runs in _against(results, baseline):
        modes = {suite.thinking for run in (*runs, *baseline_runs) for suite in run.answered}
        pairs += [
            (_outcomes(baseline, baseline_runs, mode), _outcomes(condition, runs, mode))
            for mode in sorted(modes, reverse=True)  # on, off
        ]
    return compare_pairs(pairs, paired_seeds=True)


def _outcomes(condition: str, runs: Sequence[RunResult], thinking: Thinking) -> SystemOutcomes:
    """Return the outcomes of a condition in one CoT mode, by suite and prompt, with one share per run."""
    suites: dict[str, tuple[Kind, Outcomes]] = {}
    by_run = [{suite.suite: suite for suite in run.answered if suite.thinking == thinking} for run in runs]
    for name in by_run[0]:
        seeds = [suites_of_run[name] for suites_of_run in by_run]
        prompt_ids = seeds[0].shares.keys()
        if any(seed.shares.keys() != prompt_ids for seed in seeds):
            raise ValueError(f"runs of {condition} were asked different prompts of {name}")
        # A run without a judged answer does not show that its judge looks for harm.
        kind: Kind = "attack" if any(seed.kind == "attack" for seed in seeds) else seeds[0].kind
        suites[name] = kind, {id_: tuple(seed.shares[id_] for seed in seeds) for id_ in sorted(prompt_ids)}
    return SystemOutcomes(condition, thinking, suites)


def seed_differences(results: Sequence[RunResult], baseline: str) -> list[SeedDifference]:
    """Compare every metric of every other condition with the baseline's, paired by seed.

    Args:
        results: The finished runs of a study.
        baseline: Name of the condition to compare with.
    """
    differences = []
    for condition, runs, baseline_runs in _against(results, baseline):
        values, baseline_values = _values(runs), _values(baseline_runs)
        for cell in (cell for cell in values if cell in baseline_values):
            by_seed, baseline_by_seed = values[cell], baseline_values[cell]
            over_seeds = student_interval(
                [by_seed[seed] - baseline_by_seed[seed] for seed in by_seed if seed in baseline_by_seed]
            )
            if over_seeds.value is not None:
                differences.append(
                    SeedDifference(
                        condition=condition,
                        thinking=cell.thinking,
                        suite=cell.suite,
                        metric=cell.metric,
                        difference=over_seeds.value,
                        low=over_seeds.low,
                        high=over_seeds.high,
                        num_seeds=over_seeds.n,
                    )
                )
    return differences


def training_costs(results: Sequence[RunResult]) -> list[TrainingCost]:
    """Return the mean seconds and tokens of a training, for each condition.

    Args:
        results: The finished runs of a study.
    """
    costs = []
    for condition, runs in _by_condition(results).items():
        times = [run.training_s for run in runs if run.training_s is not None]
        tokens = [run.trained_tokens for run in runs if run.trained_tokens is not None]
        costs.append(
            TrainingCost(
                condition=condition,
                num_seeds=len(runs),
                training_s=mean(times) if times else None,
                trained_tokens=mean(tokens) if tokens else None,
            )
        )
    return costs


def operating_points(results: Sequence[RunResult]) -> list[StudyOperatingPoint]:
    """Return the operating points of the runs whose adapter was scaled.

    Args:
        results: The finished runs of a study.
    """
    return [
        StudyOperatingPoint(condition=run.condition, seed=run.seed, **run.operating_point.model_dump())
        for run in results
        if run.operating_point is not None
    ]


def _by_condition(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Group runs by their condition."""
    groups: dict[str, list[RunResult]] = {}
    for result in results:
        groups.setdefault(result.condition, []).append(result)
    return groups


def _against(results: Sequence[RunResult], baseline: str) -> Iterator[tuple[str, list[RunResult], list[RunResult]]]:
    """Yield every other condition with its runs and the baseline's, if both have a seed in common."""
    conditions = _by_condition(results)
    for condition, runs in conditions.items():
        shared, baseline_shared = _same_seeds(runs, conditions.get(baseline, []))
        if condition != baseline and shared:
            yield condition, shared, baseline_shared


def _same_seeds(left: Sequence[RunResult], right: Sequence[RunResult]) -> tuple[list[RunResult], list[RunResult]]:
    """Return the runs of both conditions whose seed the other has too, in the same order."""
    left_runs, right_runs = _by_seed(left, right), _by_seed(right, left)
    seeds = [seed for seed in left_runs if seed in right_runs]
    return [left_runs[seed] for seed in seeds], [right_runs[seed] for seed in seeds]


def _by_seed(runs: Sequence[RunResult], others: Sequence[RunResult]) -> dict[int, RunResult]:
    """Map seeds to runs; an untrained condition reuses its first run for every seed of the other condition."""
    if runs and all(run.training_s is None for run in runs):
        return {other.seed: runs[0].model_copy(update={"seed": other.seed}) for other in others}
    return {run.seed: run for run in runs}


def _own_scores(run: RunResult) -> Iterator[Score]:
    """Return an iterator over the scores of the run's own system."""
    return (score for score in run.scores if score.system == run.system)


def _rows_by_cell(runs: Sequence[RunResult]) -> dict[Cell, list[Score]]:
    """Group the scores of a condition's runs by mode, suite and metric."""
    cells: dict[Cell, list[Score]] = {}
    for run in runs:
        for score in _own_scores(run):
            cells.setdefault(Cell(score.thinking, score.suite, score.metric), []).append(score)
    return cells


def _values(runs: Sequence[RunResult]) -> dict[Cell, dict[int, float]]:
    """Return the value of every cell, by seed."""
    values: dict[Cell, dict[int, float]] = {}
    for run in runs:
        for score in _own_scores(run):
            if score.value is not None:
                values.setdefault(Cell(score.thinking, score.suite, score.metric), {})[run.seed] = score.value
    return values
