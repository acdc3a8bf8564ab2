"""Differences of pairs that no study.json holds, computed from the committed runs by the studies' own rule."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from paths import STUDIES

from presafe.runs.io import read_record
from presafe.study.records import MetricDifference, RunResult
from presafe.study.statistics import metric_differences


class Side(NamedTuple):
    """A condition of a study, "shipped/presafe"."""

    study: str
    condition: str

    @classmethod
    def parse(cls, text: str) -> Side:
        """Return the side that a text like "shipped/presafe" names."""
        study, condition = text.split("/")
        return cls(study, condition)


class Pair(NamedTuple):
    """What a page quotes: one condition minus another, on one suite and metric."""

    condition: str
    against: str
    suite: str
    metric: str
    seeds: tuple[int, ...] | None = None
    """All that both have by default."""


@cache
def pair_difference(pair: Pair) -> MetricDifference:
    """Return a pair's difference with CoT on, paired by prompt and seed, with its interval over seeds and prompts.

    Raises:
        ValueError: the runs have no such metric, or no seed in common.
    """
    suite_and_half = {pair.suite, *_other_half(pair.suite)}
    sides = [
        [_cell_only(run, name, suite_and_half, pair) for run in _runs(Side.parse(text), pair.seeds)]
        for name, text in (("against", pair.against), ("condition", pair.condition))
    ]
    lines = metric_differences([*sides[0], *sides[1]], "against")
    matching = [line for line in lines if (line.suite, line.metric) == (pair.suite, pair.metric)]
    if len(matching) != 1:
        raise ValueError(f"no difference of {pair}")
    return matching[0]


def _other_half(suite: str) -> Sequence[str]:
    """Return the harmful half of a suite of look-alikes, which its J needs."""
    from presafe.evaluation.suites import harmful_half

    half = harmful_half(suite)
    return (half,) if half else ()


@cache
def _runs(side: Side, seeds: tuple[int, ...] | None) -> tuple[RunResult, ...]:
    """Return the committed runs of a condition, all or those of some seeds."""
    files = sorted((STUDIES / side.study / "runs").glob(f"{side.condition}-seed*.json"))
    runs = [read_record(file, RunResult, hint="Restore it from the repository.") for file in files]
    return tuple(run for run in runs if seeds is None or run.seed in seeds)


def _cell_only(run: RunResult, name: str, suites: set[str], pair: Pair) -> RunResult:
    """Return a run under another condition's name, with nothing but what the pair needs."""
    scores = [row for row in run.scores if (row.thinking, row.suite, row.metric) == ("on", pair.suite, pair.metric)]
    answered = [row for row in run.answered if row.thinking == "on" and row.suite in suites]
    return run.model_copy(
        update={"condition": name, "scores": tuple(scores), "answered": tuple(answered), "positions": ()}
    )
