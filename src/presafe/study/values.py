"""Per-prompt values of a run's metrics, which the crossed interval needs (`stats.crossed`).

    leading rates           one group: the share of each prompt's answers that count
    Youden's J              two groups: refusals of the harmful half, and minus those of the harmless half
    AUROC of the decision   two groups of placements (`auroc_groups`)
    cross-fitted rates, J   whether the decision is above the threshold; the interval takes the thresholds as given

All other metrics have only their value per seed. So have the AUROCs of runs from before release 0.3.0, which did not
keep the decision's scores of each prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from presafe.evaluation.differences import LEADING
from presafe.evaluation.positions import POSITION_METRICS, cross_fitted_decisions, position_groups
from presafe.evaluation.suites import harmful_half
from presafe.records import SuiteShares, Thinking
from presafe.stats.auroc import auroc
from presafe.stats.crossed import auroc_groups, fill_gaps
from presafe.study.records import RunResult

if TYPE_CHECKING:
    from presafe.stats.crossed import Group

Values = Mapping[str, float | None]
"""Value of each prompt of a group by its id; None if it has none."""


METRICS = (
    *dict.fromkeys(metric for metric, _ in LEADING.values()),
    "not_refused_rate",
    "youden_j",
    *(metric.name for metric in POSITION_METRICS if metric.statistic is auroc),
    "cross_refusal_rate",
    "cross_over_refusal_rate",
    "cross_youden_j",
)
"""Metrics that have values of prompts, and so p-values: an endpoint is one of them."""


class Cell(NamedTuple):
    """CoT mode, suite and metric of a value."""

    thinking: Thinking
    suite: str
    metric: str


def prompt_values(run: RunResult) -> dict[Cell, tuple[Values, ...]]:
    """Return the groups of per-prompt values of every metric that has them.

    Args:
        run: The numbers of one run.
    """
    cells: dict[Cell, tuple[Values, ...]] = {}
    answered = {(suite.thinking, suite.suite): suite for suite in run.answered}
    for (thinking, name), suite in answered.items():
        cells[Cell(thinking, name, LEADING[suite.kind][0])] = (suite.shares,)
        if suite.kind == "refuse":
            cells[Cell(thinking, name, "not_refused_rate")] = (_map(suite.shares, lambda share: 1 - share),)
        harmful = answered.get((thinking, harmful_half(name) or ""))
        if suite.kind == "comply" and harmful is not None and harmful.kind == "refuse":
            cells[Cell(thinking, name, "youden_j")] = _youden_groups(harmful, suite)
    return cells | dict(_ranking_cells(run))


def _map(values: Values, change: Callable[[float], float]) -> Values:
    """Return changed values; None stays None."""
    return {prompt_id: None if value is None else change(value) for prompt_id, value in values.items()}


def _youden_groups(harmful: SuiteShares, harmless: SuiteShares) -> tuple[Values, Values]:
    """Return the groups of Youden's J, whose means add up to it."""
    return harmful.shares, _map(harmless.shares, lambda share: -share)


def _ranking_cells(run: RunResult) -> Iterator[tuple[Cell, tuple[Values, ...]]]:
    """Yield the groups of every AUROC and of every cross-fitted rate at the decision position."""
    for suite in dict.fromkeys(position.suite for position in run.positions if position.expect == "comply"):
        for metric in POSITION_METRICS:
            positive, negative = position_groups(run.positions, suite, metric)
            if metric.statistic is auroc and positive and negative:
                above, below = auroc_groups(_column(positive), _column(negative))
                yield (
                    Cell("on", suite, metric.name),
                    (
                        dict(zip(positive, above[:, 0].tolist(), strict=True)),
                        dict(zip(negative, below[:, 0].tolist(), strict=True)),
                    ),
                )
        if decisions := cross_fitted_decisions(run.positions, suite):
            refused, wrongly = decisions
            yield Cell("on", suite, "cross_refusal_rate"), (refused,)
            yield Cell("on", suite, "cross_over_refusal_rate"), (wrongly,)
            yield Cell("on", suite, "cross_youden_j"), (refused, _map(wrongly, lambda share: -share))


def _column(scores: Mapping[str, float]) -> Group:
    """Return scores as a group with one seed."""
    return np.array(list(scores.values()))[:, None]


def stacked(*sides: Sequence[tuple[Values, ...]]) -> list[list[Group]] | None:
    """Return each side's groups as arrays of prompts × seeds.

    A prompt without a value in every seed of a side is left out on all sides. Other gaps are filled (`fill_gaps`).

    Args:
        *sides: One tuple of groups per seed, on every side of the same prompts.

    Returns:
        One list of groups per side; None if a group has fewer than two prompts left, or a seed has no value of them.

    Raises:
        ValueError: the prompts of two seeds or sides differ.
    """
    tables = [[_tables(group) for group in zip(*side, strict=True)] for side in sides]
    result: list[list[Group]] = [[] for _ in sides]
    for groups in zip(*tables, strict=True):
        if any(ids != groups[0][0] for ids, _ in groups):
            raise ValueError("seeds or sides of a metric were asked different prompts")
        kept = np.all([~np.isnan(table).all(axis=1) for _, table in groups], axis=0)
        if kept.sum() < 2 or any(np.isnan(table[kept]).all(axis=0).any() for _, table in groups):
            return None
        for side, (_, table) in zip(result, groups, strict=True):
            side.append(fill_gaps(table[kept]))
    return result


def _tables(seeds: Sequence[Values]) -> tuple[list[str], Group]:
    """Return the sorted prompts of a group and its values, prompts × seeds, NaN for a gap."""
    ids = sorted(seeds[0])
    if any(seed.keys() != seeds[0].keys() for seed in seeds):
        raise ValueError("seeds or sides of a metric were asked different prompts")
    return ids, np.array([[np.nan if (value := seed[id_]) is None else value for seed in seeds] for id_ in ids])
