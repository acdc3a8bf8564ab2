"""A study's summary: study.json for programs, study.md and a figure for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

from presafe.records import Score, StudyScore, StudySummary, TrainingCost, write_text
from presafe.report.labels import DASH, METRICS, SUITES, chance, duration, estimate, interval, label, plain, points
from presafe.report.rows import MODES, halves, headline_metrics, metrics, suites

SCHEMA = 1
"""Version of study.json. A change that would break a reader raises it."""

FEW = 0.9
"""A cell of which fewer answers have a verdict than this share of its column's most is marked: a rate of some prompts
only."""


def write_study(summary: StudySummary, folder: Path) -> None:
    """Write study.json, study.md and its figures.

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
    """The summary as a page of Markdown tables, with those of its figures that were drawn."""
    done, missing = len(summary.done), len(summary.missing)
    parts = [
        f"# {plain(summary.name)}",
        f"Recipe `{summary.recipe}`, baseline `{summary.baseline}`. {done} of {done + missing} runs are done"
        + (f"; missing: {', '.join(summary.missing)}." if missing else "."),
    ]
    if not summary.scores:
        return "\n\n".join(parts) + "\n"
    names = suites(summary.scores)
    leading = [(suite, metric) for suite in names for metric in headline_metrics(summary.scores, suite)]
    parts += [
        "## Conditions",
        "Mean over seeds [95 % interval over seeds, Student's t]; n is the least number of prompts judged, "
        "here and below with † where it is less than nine tenths of its column's most: the other answers have no "
        "verdict. With one seed, and for the model as it came, the interval is over prompts.",
        _scores_table(summary, {_name(*column): column for column in leading}, with_cost=True),
        *(["![Every condition's leading rates](figures/conditions.svg)"] if "conditions" in figures else []),
    ]
    if summary.operating_points:
        parts += [
            "## How strongly each adapter is applied",
            "γ by seed, and how many of n harmless queries that nothing is measured on begin as a refusal then: one "
            "number for all, where a scale between a half and the largest (`align.max_scale`) gives it, and as trained "
            "where none does.",
            _operating_points_table(summary),
        ]
    alike = halves(summary.scores)
    if alike:
        parts += [
            "## Harmful against harmless prompts that are worded alike",
            "Two halves of one published suite. Youden's J is what is refused of the harmful half minus what is of the "
            "harmless one, so that refusing more of both adds nothing to it; an AUROC has no threshold. "
            "Where the harmless half's own rate of wrong refusals is named (10 %), every system's threshold is set to "
            "it.",
            _scores_table(summary, {_name(*column): column for column in alike}),
            *(["![Every condition, halves worded alike](figures/halves.svg)"] if "halves" in figures else []),
        ]
    if summary.differences:
        parts += [
            f"## Against {summary.baseline}, paired by prompt and seed",
            "In points [95 % interval over seeds and prompts; with one seed, over prompts]; p corrected after Holm over"
            " all lines.",
            _differences_table(summary),
        ]
    if summary.seed_differences:
        parts += [
            f"## Against {summary.baseline}, every number, paired by seed",
            "Difference [95 % interval over seeds, Student's t], not corrected for how many there are.",
            _seed_differences_table(summary),
        ]
    parts.append("## Every number")
    for suite in names:
        columns = {label(metric, METRICS): (suite, metric) for metric in metrics(summary.scores, suite)}
        parts += [f"### {label(suite, SUITES)}", _scores_table(summary, columns)]
    return "\n\n".join(parts) + "\n"


def _name(suite: str, metric: str) -> str:
    return f"{label(suite, SUITES)}: {label(metric, METRICS)}"


def _scores_table(summary: StudySummary, columns: Mapping[str, tuple[str, str]], *, with_cost: bool = False) -> str:
    """One line a condition and CoT mode, one column a suite and metric, by its head."""
    cells = {(each.system, each.thinking, each.suite, each.metric): each for each in summary.scores}
    costs = {cost.condition: cost for cost in summary.costs}
    most = {
        column: max((each.n for each in summary.scores if (each.suite, each.metric) == column), default=0)
        for column in columns.values()
    }
    lines = []
    for name in ("vanilla", *summary.conditions):
        for mode in MODES:
            found = [cells.get((name, mode, *column)) for column in columns.values()]
            there = [score for score in found if score is not None]
            if there:
                seeds = max(score.num_seeds for score in there)
                cost = _cost(costs.get(name)) if with_cost else ()
                lines.append([name, mode, str(seeds or DASH), *map(_cell, found, most.values()), *cost])
    return _table(
        ["condition", "CoT", "seeds", *columns, *(("training", "tokens trained") if with_cost else ())], lines
    )


def _cell(score: StudyScore | None, most: int) -> str:
    if score is None or score.value is None:
        return DASH
    return f"{_number(score)}, n = {score.n}" + (" †" if score.n < FEW * most else "")


def _operating_points_table(summary: StudySummary) -> str:
    lines = []
    for name in summary.conditions:
        points = [point for point in summary.operating_points if point.condition == name]
        if points:
            by_seed = ((str(p.seed), f"{p.scale:.2f}", str(p.refused), str(p.refused_as_trained)) for p in points)
            lines.append([name, *map(" / ".join, zip(*by_seed, strict=True)), str(points[0].n)])
    return _table(["condition", "seed", "γ", "refused", "as trained", "n"], lines)


def _number(score: Score) -> str:
    """As `estimate`; a metric that presafe has no name for need not be a rate."""
    return estimate(score) if score.metric in METRICS else interval(score.value, score.low, score.high, is_rate=False)


def _cost(cost: TrainingCost | None) -> tuple[str, str]:
    return (
        DASH if cost is None or cost.training_s is None else duration(cost.training_s),
        DASH if cost is None or cost.trained_tokens is None else f"{cost.trained_tokens:,.0f}",
    )


def _differences_table(summary: StudySummary) -> str:
    heads = ["suite", "condition", "CoT", "rate", "baseline", "difference", "p", "prompts", "seeds"]
    return _table(
        heads,
        (
            [
                _name(each.suite, each.metric),
                *(each.system, each.thinking),
                *(f"{100 * rate:.1f} %" for rate in (each.value, each.value_against)),
                f"{points(each.difference)} [{points(each.low)}, {points(each.high)}]",
                *(chance(each.p_holm), str(each.n), str(each.num_seeds)),
            ]
            for each in summary.differences
        ),
    )


def _seed_differences_table(summary: StudySummary) -> str:
    return _table(
        ["suite", "condition", "CoT", "difference", "seeds"],
        (
            [
                _name(each.suite, each.metric),
                *(each.condition, each.thinking),
                f"{each.difference:+z.3f}"
                + ("" if each.low is None or each.high is None else f" [{each.low:+z.3f}, {each.high:+z.3f}]"),
                str(each.num_seeds),
            ]
            for each in summary.seed_differences
        ),
    )


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
