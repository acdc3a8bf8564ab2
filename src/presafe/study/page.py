"""The summary of a study as files: study.json for programs, study.md and figures for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TypeVar

from presafe.records import Score
from presafe.report.formatting import (
    DASH,
    METRICS,
    SUITES,
    display_name,
    format_duration,
    format_estimate,
    format_interval,
    format_p,
    format_points_interval,
    plain,
)
from presafe.report.lookup import MODES, Column, matched_columns, metrics_of, suites_in, summary_metrics
from presafe.runs.io import write_text
from presafe.study.records import StudyScore, StudySummary, TrainingCost

R = TypeVar("R")

SCHEMA = 3
"""Version of study.json. A change that would break a reader increases it. 3: `not_refused_rate`, as in results.json."""

FEW = 0.9
"""Cells are marked if their n is below this fraction of the column's largest n: many prompts have no verdict."""


def write_study(summary: StudySummary, folder: Path) -> None:
    """Write study.json, study.md and its figures.

    Args:
        summary: The study.
        folder: Where the files are written.

    Raises:
        RunError: the folder cannot be written.
    """
    from presafe.report.figures import halves_figure, systems_figure

    figures = {"conditions": systems_figure(summary.scores), "halves": halves_figure(summary.scores)}
    drawn = {name: text for name, text in figures.items() if text is not None}
    for name, text in drawn.items():
        write_text(folder / "figures" / f"{name}.svg", text)
    results = {"schema": SCHEMA, **summary.model_dump(mode="json")}
    write_text(folder / "study.json", json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(folder / "study.md", study_markdown(summary, set(drawn)))


def study_markdown(summary: StudySummary, figures: Set[str] = frozenset()) -> str:
    """Return the summary as a page of Markdown tables.

    Args:
        summary: The study.
        figures: Stems of the figures that were drawn, for the page to show.
    """
    sections = [f"# {plain(summary.name)}", _progress(summary)]
    if summary.scores:
        sections += [
            *_endpoints_section(summary),
            *_conditions_section(summary, figures),
            *_operating_points_section(summary),
            *_heads_section(summary),
            *_matched_section(summary, figures),
            *_differences_sections(summary),
            *_every_number_section(summary),
        ]
    return "\n\n".join(sections) + "\n"


def _progress(summary: StudySummary) -> str:
    """Return how many runs are done and which are missing."""
    done, missing = len(summary.done), len(summary.missing)
    names = f"; missing: {', '.join(summary.missing)}." if missing else "."
    return f"Recipe `{summary.recipe}`, baseline `{summary.baseline}`. {done} of {done + missing} runs are done{names}"


def _endpoints_section(summary: StudySummary) -> Iterator[str]:
    """Yield the section on what the study set out to show."""
    yield "## Endpoints"
    if summary.declares_endpoints and not summary.endpoints:
        yield "Endpoints were declared before the runs. No run of a condition and of the baseline has one of them yet."
        return
    if not summary.endpoints:
        yield (
            "No endpoint was declared before the runs. In the tables of differences, p is corrected over all leading "
            "rates (Holm); read them as a search, not as a test."
        )
        return
    yield (
        "Declared before the runs, the primary endpoint first; p is corrected over these lines (Holm). Shown: the "
        "whole interval exceeds the bound, and p < .05. Refuted: the whole interval is below it. The p is that of "
        "no difference, and the interval is not corrected. A line whose head did not fit says nothing of what the head "
        "is worth. All other lines of this page are a search."
    )
    yield _endpoints_table(summary)


def _endpoints_table(summary: StudySummary) -> str:
    """Return a table with a line per endpoint and condition."""
    lines = [
        [
            _name(row.endpoint.suite, row.endpoint.metric),
            row.condition,
            row.endpoint.thinking,
            f"{row.difference:+z.3f} [{row.low:+z.3f}, {row.high:+z.3f}]",
            f"{row.endpoint.better} by more than {row.endpoint.bound:g}",
            format_p(row.p_holm),
            str(row.num_seeds),
            row.verdict if row.head_fitted else f"{row.verdict}; the head did not fit",
        ]
        for row in summary.endpoints
    ]
    return _table(["metric", "condition", "CoT", "difference", "bound", "p", "seeds", "verdict"], lines)


def _conditions_section(summary: StudySummary, figures: Set[str]) -> Iterator[str]:
    """Yield the section with the leading rates of every condition."""
    scores = summary.scores
    columns = [(suite, metric) for suite in suites_in(scores) for metric in summary_metrics(scores, suite)]
    yield "## Conditions"
    yield (
        "Mean over seeds [95 % interval over seeds and prompts]. n is the smallest number of judged prompts of a "
        "seed; it is marked with † if it is below nine tenths of the largest n in its column: the other answers have "
        "no verdict. With one seed, and for the model as it came, the interval is over prompts. ‡ marks an interval "
        "over seeds alone, which says nothing of other prompts."
    )
    yield _scores_table(summary, {_name(*column): column for column in columns}, with_cost=True)
    if "conditions" in figures:
        yield "![Every condition's leading rates](figures/conditions.svg)"


def _operating_points_section(summary: StudySummary) -> Iterator[str]:
    """Yield the section on how strongly each adapter is applied, if any was scaled."""
    if summary.operating_points:
        yield "## How strongly each adapter is applied"
        yield (
            "The scale γ of each seed, and how many of n harmless queries are refused at it. Nothing else is measured "
            "on these queries. The number is the same for all adapters, if a scale from a half to the largest "
            "(`align.max_scale`) reaches it; otherwise the adapter stays as trained."
        )
        yield _operating_points_table(summary)


def _heads_section(summary: StudySummary) -> Iterator[str]:
    """Yield the section on how well the heads learned p′, if it was measured."""
    if not summary.head_fits:
        return
    yield "## Did the head learn p′?"
    yield (
        "Over the last quarter of the steps, the seeds side by side. A head explains 0 % if it does no better than one "
        "that says the same of every query, and 100 % at the floor, the mean entropy of p′. Below half it did not fit, "
        "and the condition carries no verdict on what the head is worth."
    )
    lines = []
    for name in summary.conditions:
        fits = [fit for fit in summary.head_fits if fit.condition == name]
        if fits:
            by_seed = _side_by_side(
                fits,
                lambda fit: str(fit.seed),
                lambda fit: f"{fit.loss:.2f}",
                lambda fit: f"{fit.floor:.2f}",
                lambda fit: DASH if fit.explained is None else f"{100 * fit.explained:.0f} %",
                lambda fit: f"{fit.cosine:.2f}",
            )
            verdict = "did not fit" if any(fit.is_fitted is False for fit in fits) else "fitted"
            if all(fit.is_fitted is None for fit in fits):
                verdict = "nothing to fit"
            lines.append([name, *by_seed, verdict])
    yield _table(["condition", "seed", "L_align", "floor", "explained", "cosine with its start", "verdict"], lines)


def _matched_section(summary: StudySummary, figures: Set[str]) -> Iterator[str]:
    """Yield the section on harmful and harmless halves that are worded alike, if a suite has both."""
    columns = matched_columns(summary.scores)
    if columns:
        yield "## Harmful against harmless prompts that are worded alike"
        yield (
            "Two halves of one published suite. Youden's J is the refusal rate of the harmful half minus that of the "
            "harmless half, so that refusing more of both does not raise it; an AUROC has no threshold. "
            "In columns that name a rate of wrong refusals (10 %), the threshold of every system is set to that rate."
        )
        yield _scores_table(summary, {_name(*column): column for column in columns})
        if "halves" in figures:
            yield "![Every condition, halves worded alike](figures/halves.svg)"


def _differences_sections(summary: StudySummary) -> Iterator[str]:
    """Yield the sections with differences from the baseline, paired by prompt and by seed."""
    if summary.differences:
        yield f"## Against {summary.baseline}, paired by prompt and seed"
        yield (
            "In points [95 % interval over seeds and prompts; with one seed, over prompts]. p is corrected over all "
            "lines (Holm)."
        )
        yield _differences_table(summary)
    if summary.metric_differences:
        yield f"## Against {summary.baseline}, every number"
        yield (
            "Difference [95 % interval], not corrected for the number of lines. An interval over seeds alone says "
            "nothing of other prompts; one over prompts, nothing of other trainings."
        )
        yield _metric_differences_table(summary)


def _every_number_section(summary: StudySummary) -> Iterator[str]:
    """Yield a table of all metrics for each suite."""
    yield "## Every number"
    for suite in suites_in(summary.scores):
        columns = {display_name(metric, METRICS): (suite, metric) for metric in metrics_of(summary.scores, suite)}
        yield f"### {display_name(suite, SUITES)}"
        yield _scores_table(summary, columns)


def _name(suite: str, metric: str) -> str:
    """Return the heading of a column."""
    return f"{display_name(suite, SUITES)}: {display_name(metric, METRICS)}"


def _scores_table(summary: StudySummary, columns: Mapping[str, Column], *, with_cost: bool = False) -> str:
    """Return a table with a line per condition and CoT mode.

    Args:
        summary: The study.
        columns: Suite and metric by heading.
        with_cost: Whether to add the cost of a training.
    """
    cells = {(score.system, score.thinking, score.suite, score.metric): score for score in summary.scores}
    costs = {cost.condition: cost for cost in summary.costs}
    largest_n = [
        max((score.n for score in summary.scores if (score.suite, score.metric) == column), default=0)
        for column in columns.values()
    ]
    lines = []
    for name in ("vanilla", *summary.conditions):
        for mode in MODES:
            scores = [cells.get((name, mode, suite, metric)) for suite, metric in columns.values()]
            present = [score for score in scores if score is not None]
            if present:
                seeds = max(score.num_seeds for score in present)
                line = [name, mode, str(seeds or DASH), *map(_cell, scores, largest_n)]
                lines.append([*line, *_cost(costs.get(name))] if with_cost else line)
    heads = ["condition", "CoT", "seeds", *columns]
    return _table([*heads, "training", "tokens trained"] if with_cost else heads, lines)


def _cell(score: StudyScore | None, largest_n: int) -> str:
    """Format a score with its n, which is marked if it is far below the column's largest."""
    if score is None or score.value is None:
        return DASH
    over_seeds = " ‡" if score.over == "seeds" and score.num_seeds > 1 else ""
    return f"{_number(score)}{over_seeds}, n = {score.n}" + (" †" if score.n < FEW * largest_n else "")


def _operating_points_table(summary: StudySummary) -> str:
    """Return a table with a line per condition, its seeds side by side."""
    lines = []
    for name in summary.conditions:
        points = [point for point in summary.operating_points if point.condition == name]
        if points:
            by_seed = _side_by_side(
                points,
                lambda point: str(point.seed),
                lambda point: f"{point.scale:.2f}",
                lambda point: str(point.refused),
                lambda point: str(point.refused_as_trained),
            )
            lines.append([name, *by_seed, str(points[0].n)])
    return _table(["condition", "seed", "γ", "refused", "as trained", "n"], lines)


def _side_by_side(rows: Sequence[R], *cells: Callable[[R], str]) -> list[str]:
    """Return the cells of a condition's line, each with the values of all seeds: "0.94 / 1.00"."""
    return [" / ".join(map(cell, rows)) for cell in cells]


def _number(score: Score) -> str:
    """Format a score as `format_estimate` does; an unknown metric is formatted as a plain number, not as a rate."""
    if score.metric in METRICS:
        return format_estimate(score)
    return format_interval(score.value, score.low, score.high, is_rate=False)


def _cost(cost: TrainingCost | None) -> tuple[str, str]:
    """Format the time and the tokens of a training."""
    return (
        DASH if cost is None or cost.training_s is None else format_duration(cost.training_s),
        DASH if cost is None or cost.trained_tokens is None else f"{cost.trained_tokens:,.0f}",
    )


def _differences_table(summary: StudySummary) -> str:
    """Return a table with a line per difference paired by prompt and seed."""
    heads = ["suite", "condition", "CoT", "rate", "baseline", "difference", "p", "prompts", "seeds"]
    lines = [
        [
            _name(row.suite, row.metric),
            row.system,
            row.thinking,
            f"{100 * row.value:.1f} %",
            f"{100 * row.value_against:.1f} %",
            format_points_interval(row.difference, row.low, row.high),
            format_p(row.p_holm),
            str(row.n),
            str(row.num_seeds),
        ]
        for row in summary.differences
    ]
    return _table(heads, lines)


def _metric_differences_table(summary: StudySummary) -> str:
    """Return a table with a line per metric and condition."""
    lines = []
    for row in summary.metric_differences:
        interval = "" if row.low is None or row.high is None else f" [{row.low:+z.3f}, {row.high:+z.3f}]"
        difference = f"{row.difference:+z.3f}{interval}"
        lines.append(
            [_name(row.suite, row.metric), row.condition, row.thinking, difference, row.over, str(row.num_seeds)]
        )
    return _table(["suite", "condition", "CoT", "difference", "interval over", "seeds"], lines)


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
