"""Statistics of a study: means over seeds, and every condition compared with the baseline.

    scores               mean over the k seeds of a condition, of every metric
    differences          leading rates, paired by prompt and seed (`paired_differences`), p corrected over all of them
    metric_differences   every metric, paired by seed and, where its values of prompts are known, by prompt
    endpoints            what the study declared before its runs, p corrected over these lines alone

Intervals are over seeds and prompts (`stats.crossed`). A metric that has only a value per seed gets Student's interval
over seeds, and its row says so (`over`).

Pure functions of the runs' records. Only seeds that both conditions have are paired. A condition that trains nothing is
the same for every seed, so its one run is paired with every run of the other condition.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from statistics import mean
from typing import TYPE_CHECKING

from presafe.errors import RecipeError
from presafe.evaluation.differences import Kind, SystemOutcomes
from presafe.evaluation.differences import paired_differences as compare_pairs
from presafe.records import Difference, Score, Thinking
from presafe.stats.comparison import Outcomes, difference_estimate, holm
from presafe.stats.crossed import crossed_estimate
from presafe.stats.intervals import student_interval
from presafe.study.records import (
    EndpointResult,
    MetricDifference,
    Over,
    RunResult,
    StudyOperatingPoint,
    StudyScore,
    TrainingCost,
    Verdict,
)
from presafe.study.spec import Endpoint
from presafe.study.values import METRICS, Cell, Values, prompt_values, stacked

if TYPE_CHECKING:
    from presafe.stats.crossed import Group

RANGES = {"youden_j": (-1.0, 1.0), "cross_youden_j": (-1.0, 1.0)}
"""Bounds of metrics that are not between 0 and 1."""


def condition_scores(results: Sequence[RunResult]) -> list[StudyScore]:
    """Return the means over the seeds of each condition, after the scores of the model as it came from the first run.

    Args:
        results: The finished runs of a study, at least one.
    """
    vanilla = [
        StudyScore(**score.model_dump(), num_seeds=0, over="prompts")
        for score in results[0].scores
        if score.system == "vanilla"
    ]
    means = []
    for condition, runs in _by_condition(results).items():
        values = [prompt_values(run) for run in runs]
        means += [_mean_row(condition, rows, _stacked_cell(cell, values)) for cell, rows in _rows_by_cell(runs).items()]
    return [*vanilla, *means]


def _mean_row(condition: str, rows: Sequence[Score], sides: list[list[Group]] | None) -> StudyScore:
    """Return the mean of one cell over seeds; a single seed keeps its interval over prompts.

    Args:
        condition: Name of the condition.
        rows: One per seed.
        sides: The cell's values of prompts, if they are known.
    """
    valued = [row for row in rows if row.value is not None]
    over: Over
    if len(valued) == 1:
        (value, low, high), over = (valued[0].value, valued[0].low, valued[0].high), "prompts"
    elif sides is not None:
        estimate = crossed_estimate(sides[0])
        lowest, highest = RANGES.get(rows[0].metric, (0.0, 1.0))
        value, over = estimate.value, "seeds and prompts"
        low, high = max(lowest, estimate.low), min(highest, estimate.high)
    else:
        (value, low, high, _), over = student_interval([row.value for row in valued if row.value is not None]), "seeds"
    return StudyScore(
        **rows[0].model_dump(exclude={"system", "value", "low", "high", "n", "seed"}),
        system=condition,
        value=value,
        low=low,
        high=high,
        n=min(row.n for row in rows),
        seed=None,
        num_seeds=len(valued),
        over=over,
    )


def _stacked_cell(cell: Cell, *sides: Sequence[Mapping[Cell, tuple[Values, ...]]]) -> list[list[Group]] | None:
    """Return a cell's values of prompts, prompts × seeds, on every side; None if a run has none."""
    groups = [[values.get(cell) for values in side] for side in sides]
    if any(seed is None for side in groups for seed in side):
        return None
    return stacked(*([seed for seed in side if seed is not None] for side in groups))


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


def metric_differences(results: Sequence[RunResult], baseline: str) -> list[MetricDifference]:
    """Compare every metric of every other condition with the baseline's, over the seeds that both have.

    Args:
        results: The finished runs of a study.
        baseline: Name of the condition to compare with.

    Raises:
        ValueError: two runs of a suite were asked different prompts.
    """
    differences = []
    for condition, runs, baseline_runs in _against(results, baseline):
        rows, baseline_rows = _values(runs), _values(baseline_runs)
        values = [prompt_values(run) for run in runs]
        baseline_values = [prompt_values(run) for run in baseline_runs]
        for cell in (cell for cell in rows if cell in baseline_rows):
            by_seed = [
                value - baseline_rows[cell][seed] for seed, value in rows[cell].items() if seed in baseline_rows[cell]
            ]
            sides = _stacked_cell(cell, baseline_values, values)
            if by_seed:
                differences.append(_metric_difference(condition, cell, by_seed, sides))
    return differences


def _metric_difference(
    condition: str, cell: Cell, by_seed: Sequence[float], sides: list[list[Group]] | None
) -> MetricDifference:
    """Return one line: from values of prompts if they are known, else from one difference per seed.

    Args:
        condition: Name of the condition.
        cell: The metric.
        by_seed: Differences of the metric's values, one per seed.
        sides: Groups of the baseline and of the condition.
    """
    low: float | None
    high: float | None
    p: float | None
    over: Over
    if sides is None:
        (difference, low, high, _), p, over = student_interval(by_seed), None, "seeds"
    else:
        is_share = not cell.metric.endswith("auroc")
        estimate = difference_estimate(*sides, paired_seeds=True, are_shares=is_share)
        lowest, highest = RANGES.get(cell.metric, (0.0, 1.0))
        widest = highest - lowest
        difference, low, high = estimate.value, max(-widest, estimate.low), min(widest, estimate.high)
        p, over = estimate.p, "seeds and prompts" if len(by_seed) > 1 else "prompts"
    assert difference is not None  # by_seed is not empty
    return MetricDifference(
        condition=condition,
        thinking=cell.thinking,
        suite=cell.suite,
        metric=cell.metric,
        difference=difference,
        low=low,
        high=high,
        p=p,
        num_seeds=len(by_seed),
        over=over,
    )


def check_endpoints(endpoints: Sequence[Endpoint], suites: Collection[str]) -> None:
    """Check that every endpoint names a suite of the study and a metric that has p-values.

    Args:
        endpoints: As the study declares them.
        suites: Names of the study's suites.

    Raises:
        RecipeError: one does not.
    """
    for endpoint in endpoints:
        if endpoint.suite not in suites:
            raise RecipeError(
                f"an endpoint names the suite {endpoint.suite!r}, which the study does not measure.",
                f"Its suites are {', '.join(suites)}.",
            )
        if endpoint.metric not in METRICS:
            raise RecipeError(
                f"an endpoint names the metric {endpoint.metric!r}, which has no p-value.",
                f"Choose one of {', '.join(METRICS)}.",
            )


def endpoint_results(
    endpoints: Sequence[Endpoint], differences: Sequence[MetricDifference], unfitted: Set[str] = frozenset()
) -> list[EndpointResult]:
    """Return what the lines of the declared endpoints show, p corrected over all of them (Holm).

    Args:
        endpoints: As the study declares them.
        differences: All lines of the study. A line without p, which is over seeds alone, cannot be an endpoint.
        unfitted: Conditions with a head that did not fit.
    """
    lines = [
        (endpoint, line, line.p)
        for endpoint in endpoints
        for line in differences
        if line.p is not None
        and (line.thinking, line.suite, line.metric) == (endpoint.thinking, endpoint.suite, endpoint.metric)
        and line.condition in (endpoint.conditions or {line.condition})
    ]
    corrected = holm([p for *_, p in lines])
    return [
        _endpoint_result(endpoint, line, p, is_fitted=line.condition not in unfitted)
        for (endpoint, line, _), p in zip(lines, corrected, strict=True)
    ]


def _endpoint_result(endpoint: Endpoint, line: MetricDifference, p_holm: float, *, is_fitted: bool) -> EndpointResult:
    """Return what one line says of an endpoint."""
    result = EndpointResult(
        endpoint=endpoint,
        p_holm=p_holm,
        verdict="one seed",
        head_fitted=is_fitted,
        **line.model_dump(include={"condition", "difference", "low", "high", "num_seeds", "over"}),
    )
    return result if line.num_seeds < 2 else result.model_copy(update={"verdict": _verdict(result)})


def _verdict(result: EndpointResult) -> Verdict:
    """Return what an interval over seeds and prompts says of an endpoint."""
    low, high, bound = result.low, result.high, result.endpoint.bound
    nearest, farthest = (low, high) if result.endpoint.better == "higher" else (-high, -low)
    if nearest > bound and result.p_holm < 0.05:
        return "shown"
    return "refuted" if farthest < bound else "not shown"


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
