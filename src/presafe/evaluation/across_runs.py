"""What a study's runs say together: means over seeds, and every condition against the baseline.

    scores             mean ± t₀.₉₇₅ · s/√k over the k seeds of a condition (`over_seeds`), for whatever the runs scored
    differences        leading rates, paired by prompt and by seed (`comparison`), p corrected over all of them
    seed_differences   every number, paired by seed only: mean ± t₀.₉₇₅ · s/√k of the k differences

Pure functions of the runs' records. Only seeds that both sides have are paired; what trains nothing is the same with
every seed, and its one run meets each of the other side's.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from presafe.evaluation.comparison import AnsweredSuites, Kind, Outcomes, differences
from presafe.intervals import over_seeds
from presafe.records import (
    Difference,
    RunResult,
    Score,
    SeedDifference,
    StudyOperatingPoint,
    StudyScore,
    Thinking,
    TrainingCost,
)

Cell = tuple[Thinking, str, str]
"""CoT mode, suite and metric."""


def condition_scores(results: Sequence[RunResult]) -> list[StudyScore]:
    """Means over the seeds of each condition, and the rows of the model as it came, from the first run."""
    vanilla = [
        StudyScore(**score.model_dump(), num_seeds=0) for score in results[0].scores if score.system == "vanilla"
    ]
    return [*vanilla, *(_mean(name, rows) for name, runs in _by_condition(results).items() for rows in _cells(runs))]


def _mean(condition: str, rows: Sequence[Score]) -> StudyScore:
    found = [row for row in rows if row.value is not None]
    over = over_seeds([row.value for row in found if row.value is not None])
    bounds = (found[0].low, found[0].high) if len(found) == 1 else (over.low, over.high)
    return StudyScore(
        **rows[0].model_dump(exclude={"system", "value", "low", "high", "n", "seed"}),
        system=condition,
        value=over.value,
        low=bounds[0],
        high=bounds[1],
        n=min(row.n for row in rows),
        seed=None,
        num_seeds=over.n,
    )


def paired_differences(results: Sequence[RunResult], baseline: str) -> list[Difference]:
    """Every other condition's leading rates against the baseline's, over the seeds that both have.

    Raises:
        ValueError: two runs of a suite were asked different prompts.
    """
    conditions = _by_condition(results)
    pairs = []
    for name, runs in conditions.items():
        ours, theirs = _same_seeds(runs, conditions.get(baseline, []))
        if name == baseline or not ours:
            continue
        modes = {each.thinking for run in (*ours, *theirs) for each in run.answered}
        pairs += [
            (_answered(baseline, theirs, mode), _answered(name, ours, mode)) for mode in sorted(modes, reverse=True)
        ]  # on, off
    return differences(pairs, paired_seeds=True)


def _answered(condition: str, runs: Sequence[RunResult], thinking: Thinking) -> AnsweredSuites:
    suites: dict[str, tuple[Kind, Outcomes]] = {}
    answered = [{each.suite: each for each in run.answered if each.thinking == thinking} for run in runs]
    for suite in answered[0]:
        seeds = [each[suite] for each in answered]
        if any(each.shares.keys() != seeds[0].shares.keys() for each in seeds):
            raise ValueError(f"runs of {condition} were asked different prompts of {suite}")
        # A run none of whose answers could be judged does not know that its judge reads harm.
        kind: Kind = "attack" if any(each.kind == "attack" for each in seeds) else seeds[0].kind
        suites[suite] = kind, {name: tuple(each.shares[name] for each in seeds) for name in sorted(seeds[0].shares)}
    return AnsweredSuites(condition, thinking, suites)


def seed_differences(results: Sequence[RunResult], baseline: str) -> list[SeedDifference]:
    """Every number of every other condition that the baseline has too, paired by seed."""
    conditions = _by_condition(results)
    found = []
    for name, runs in conditions.items():
        if name == baseline:
            continue
        ours, theirs = (_values(each) for each in _same_seeds(runs, conditions.get(baseline, [])))
        for cell in (cell for cell in ours if cell in theirs):
            seeds = [seed for seed in ours[cell] if seed in theirs[cell]]
            over = over_seeds([ours[cell][seed] - theirs[cell][seed] for seed in seeds])
            if over.value is not None:
                thinking, suite, metric = cell
                found.append(
                    SeedDifference(
                        condition=name,
                        thinking=thinking,
                        suite=suite,
                        metric=metric,
                        difference=over.value,
                        low=over.low,
                        high=over.high,
                        num_seeds=over.n,
                    )
                )
    return found


def training_costs(results: Sequence[RunResult]) -> list[TrainingCost]:
    """What a training of each condition took."""
    costs = []
    for name, runs in _by_condition(results).items():
        times = [run.training_s for run in runs if run.training_s is not None]
        tokens = [run.trained_tokens for run in runs if run.trained_tokens is not None]
        costs.append(
            TrainingCost(
                condition=name,
                num_seeds=len(runs),
                training_s=mean(times) if times else None,
                trained_tokens=mean(tokens) if tokens else None,
            )
        )
    return costs


def operating_points(results: Sequence[RunResult]) -> list[StudyOperatingPoint]:
    """How strongly each run's adapter is applied, of those that were scaled."""
    return [
        StudyOperatingPoint(condition=run.condition, seed=run.seed, **run.operating_point.model_dump())
        for run in results
        if run.operating_point is not None
    ]


def _by_condition(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    found: dict[str, list[RunResult]] = {}
    for result in results:
        found.setdefault(result.condition, []).append(result)
    return found


def _same_seeds(left: Sequence[RunResult], right: Sequence[RunResult]) -> tuple[list[RunResult], list[RunResult]]:
    """The runs whose seed both sides have, in one order."""
    ours, theirs = _by_seed(left, right), _by_seed(right, left)
    both = [seed for seed in ours if seed in theirs]
    return [ours[seed] for seed in both], [theirs[seed] for seed in both]


def _by_seed(runs: Sequence[RunResult], others: Sequence[RunResult]) -> dict[int, RunResult]:
    """Runs by their seed; of what trains nothing, its first run under every seed of the others."""
    if runs and all(run.training_s is None for run in runs):
        return {seed: runs[0].model_copy(update={"seed": seed}) for seed in (run.seed for run in others)}
    return {run.seed: run for run in runs}


def _own(run: RunResult) -> list[Score]:
    return [score for score in run.scores if score.system == run.system]


def _cells(runs: Sequence[RunResult]) -> list[list[Score]]:
    """The rows of a condition's runs, those of one mode, suite and metric together."""
    cells: dict[Cell, list[Score]] = {}
    for score in (score for run in runs for score in _own(run)):
        cells.setdefault((score.thinking, score.suite, score.metric), []).append(score)
    return list(cells.values())


def _values(runs: Sequence[RunResult]) -> dict[Cell, dict[int, float]]:
    """Value by seed of every cell."""
    found: dict[Cell, dict[int, float]] = {}
    for run in runs:
        for score in _own(run):
            if score.value is not None:
                found.setdefault((score.thinking, score.suite, score.metric), {})[run.seed] = score.value
    return found
