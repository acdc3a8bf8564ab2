"""The figures of a report, one pure function per figure: SVG text, or None if there is nothing to draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.ticker import PercentFormatter

from presafe.report.drawing import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    RULE,
    TEAL,
    Drawn,
    draw_bar,
    draw_histograms,
    draw_legend,
    pale_color,
    panel_grid,
    render_svg,
    running_mean,
    system_color,
)
from presafe.report.formatting import EXPECTS, METRICS, SUITES, SYSTEMS, display_name, format_size, in_known_order
from presafe.report.internals import directions_figure, plane_figure, probes_figure
from presafe.report.lookup import (
    MATCHED_METRICS,
    Column,
    count_answers,
    find_score,
    leading_metric,
    matched_columns,
    suites_in,
    systems_in,
)
from presafe.report.pareto import pareto_figure
from presafe.report.sweep import sweep_figure
from presafe.report.thoughts import thoughts_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from presafe.records import Expect, HistoryPoint, PositionScore, Score, Thinking
    from presafe.report.data import ReportData
    from presafe.signals.calibration import ClassifierCard

_DRAWN_MATCHED = ("youden_j", "matched_refusal_start_auroc")
_CLASSES = {"refuse": ORANGE, "comply": BLUE, "answer": "#9aa0a8", "choice": "#6d8f3c", "code": "#b0577d"}
_MODE_COLORS: Mapping[Thinking, str] = {"on": ORANGE, "off": BLUE}
_MODE_SHIFTS: Mapping[Thinking, float] = {"on": -0.19, "off": 0.19}
"""Shift of each mode's bar from the middle of the pair."""


class _GapGroup(NamedTuple):
    """One suite in the figure of the gap: what its prompts expect, and the rate in each mode."""

    expect: Expect
    suite: str
    rates: dict[Thinking, Score]


def figures(data: ReportData) -> dict[str, Drawn]:
    """Return every figure that the data allow, as SVG text by file stem; the stems are `FIGURES`."""
    drawn = {name: draw(data) for name, draw in FIGURES.items()}
    return {name: svg for name, svg in drawn.items() if svg is not None}


def _rates_by_mode(scores: Sequence[Score], system: str, suite: str, metric: str) -> dict[Thinking, Score]:
    """Return a system's rate with CoT on and off, where it was measured; levels are in the tables only."""
    return {mode: score for mode in _MODE_SHIFTS if (score := find_score(scores, system, mode, suite, metric))}


def gap_figure(scores: Sequence[Score]) -> Drawn | None:
    """Draw the vanilla model's refusals with CoT on and off: a pair of bars per suite, with 95 % whiskers."""
    kinds: tuple[tuple[Expect, str], ...] = (("refuse", "refusal_rate"), ("comply", "over_refusal_rate"))
    groups: list[_GapGroup] = []
    for expect, metric in kinds:
        for suite in suites_in(scores, expect):
            rates = _rates_by_mode(scores, "vanilla", suite, metric)
            if rates:
                groups.append(_GapGroup(expect, suite, rates))
    if not groups:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        names = []
        for place, group in enumerate(groups):
            for mode, score in group.rates.items():
                draw_bar(axes, place + _MODE_SHIFTS[mode], score, _MODE_COLORS[mode])
            names.append(f"{display_name(group.suite, SUITES)}\n{_gap_sizes(scores, group.suite)}")
        for expect, _ in kinds:
            places = [place for place, group in enumerate(groups) if group.expect == expect]
            if places:
                middle, title = sum(places) / len(places), f"prompts {EXPECTS[expect]}"
                axes.text(middle, 1.2, title, ha="center", color=MUTED, style="italic")
                if places[0] > 0:
                    axes.axvline(places[0] - 0.5, color=RULE, linewidth=1)
        axes.set_xticks(range(len(groups)), names, color=INK)
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.set_ylim(0, 1.28)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.set_ylabel("prompts refused")
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        draw_legend(figure, {f"chain of thought {mode}": color for mode, color in _MODE_COLORS.items()})

    return render_svg(draw, height_in=3.6)


def _gap_sizes(scores: Sequence[Score], suite: str) -> str:
    """Return the vanilla model's "n = 100" or, if some answers were unjudged, "on: 45 of 100 judged" for each mode."""
    counts = {mode: count for mode in _MODE_SHIFTS if (count := count_answers(scores, "vanilla", mode, suite)).total}
    if any(count.unjudged for count in counts.values()):
        return "\n".join(f"{mode}: {count.judged} of {count.total} judged" for mode, count in counts.items())
    rates = (find_score(scores, "vanilla", mode, suite, leading_metric(scores, suite)) for mode in counts)
    return f"n = {' / '.join(dict.fromkeys(format_size(score) for score in rates if score))}"


def systems_figure(scores: Sequence[Score]) -> Drawn | None:
    """Draw every system's leading rate on every suite, CoT on (full) above CoT off (pale), with 95 % whiskers."""
    columns = [(suite, metric) for suite in suites_in(scores) if (metric := leading_metric(scores, suite))]
    return _systems_panels(scores, columns)


def halves_figure(scores: Sequence[Score]) -> Drawn | None:
    """Draw how well every system separates harmful from harmless prompts worded alike, as in `systems_figure`."""
    return _systems_panels(scores, [column for column in matched_columns(scores) if column[1] in _DRAWN_MATCHED])


def _systems_panels(scores: Sequence[Score], panels: Sequence[Column]) -> Drawn | None:
    """Draw one panel per suite and metric, four per line; return None if there is nothing to draw."""
    names = systems_in([score for score in scores if (score.suite, score.metric) in panels])
    if not names:
        return None
    columns = min(4, len(panels))
    num_lines = math.ceil(len(panels) / columns)

    def draw(figure: Figure) -> None:
        for axes, (suite, metric) in zip(panel_grid(figure, len(panels), columns), panels, strict=True):
            _draw_systems(axes, scores, names, suite, metric)
        draw_legend(figure, {"chain of thought on": MUTED, "chain of thought off": pale_color(MUTED)})

    return render_svg(draw, height_in=0.5 + num_lines * (0.75 + 0.5 * len(names)))


def _draw_systems(axes: Axes, scores: Sequence[Score], names: Sequence[str], suite: str, metric: str) -> None:
    """Draw one suite: a pair of horizontal bars per system, the first system on top."""
    for place, name in enumerate(names):
        rates = _rates_by_mode(scores, name, suite, metric)
        for mode, score in rates.items():
            shift = _MODE_SHIFTS[mode] if len(rates) > 1 else 0
            color = system_color(name, names)
            draw_bar(axes, place + shift, score, color if mode == "on" else pale_color(color), horizontal=True)
    is_matched = metric in MATCHED_METRICS
    is_better = "higher" if metric in ("accuracy", "refusal_rate", *MATCHED_METRICS) else "lower"
    if is_matched:
        chance = 0.5 if metric.endswith("_auroc") else 0
        axes.axvline(chance, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_title(display_name(suite, SUITES))
    axes.set_xlabel(f"{display_name(metric, METRICS)}\n({is_better} is better)".replace(": ", ":\n"))
    axes.set_xlim(-0.3 if is_matched else 0, 1.32)
    axes.set_xticks([0, 0.5, 1])
    axes.xaxis.set_major_formatter("{x:.1f}" if is_matched else PercentFormatter(1, symbol=" %"))
    axes.set_yticks(range(len(names)), [display_name(name, SYSTEMS).replace(" (", "\n(") for name in names], color=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x")


def reliability_figure(card: ClassifierCard | None) -> Drawn | None:
    """Draw the classifier's mean p' against how often the teacher refused, bin by bin, above the bins' sizes."""
    bins = [bin_ for bin_ in card.bins if bin_.n > 0] if card else []
    points = [
        (bin_.confidence_mean, bin_.frequency)
        for bin_ in bins
        if bin_.confidence_mean is not None and bin_.frequency is not None
    ]
    if not points:
        return None

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        upper.text(0.62, 0.55, "perfectly calibrated", color=MUTED, fontsize=8)
        upper.plot([x for x, _ in points], [y for _, y in points], color=TEAL, marker="o", linewidth=1.2)
        upper.set_ylim(-0.05, 1.05)
        upper.set_ylabel("teacher refused")
        for axis in (upper.xaxis, upper.yaxis):
            axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        upper.grid()
        for bin_ in bins:
            middle, width = (bin_.low + bin_.high) / 2, bin_.high - bin_.low
            lower.bar(middle, bin_.n, width=0.86 * width, color=RULE)
            lower.text(middle, bin_.n, f"{bin_.n}", ha="center", va="bottom", fontsize=8, color=MUTED)
        lower.set_xlim(-0.03, 1.03)
        lower.set_ylim(0, 1.4 * max(bin_.n for bin_ in bins))
        lower.set_yticks([])
        lower.set_ylabel("prompts")
        lower.set_xlabel("p′, the classifier's probability that the teacher refuses")

    return render_svg(draw, height_in=4.2, width_in=5.4)


def training_figure(histories: Mapping[str, Sequence[HistoryPoint]]) -> Drawn | None:
    """Draw L_SFT, and L_align and L_start if a system has them, by step: pale as logged, full as a running mean.

    Dashed: ln 2, the loss of a head that always gives one half.
    """
    names = in_known_order((name for name, points in histories.items() if points), SYSTEMS)
    if not names:
        return None
    nll = {name: [(point.step, point.nll) for point in histories[name]] for name in names}
    bce = {name: [(p.step, p.bce) for p in histories[name] if p.bce is not None] for name in names}
    start = {name: [(p.step, p.start_bce) for p in histories[name] if p.start_bce is not None] for name in names}
    panels = [("L_SFT, next token (nats a token)", nll)]
    if any(bce.values()):
        panels.append(("L_align, head (nats a row)", bce))
    if any(start.values()):
        panels.append(("L_start, first token (nats a row)", start))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(panels), squeeze=False)
        for axes, (title, curves) in zip(grid.flat, panels, strict=True):
            for name, curve in curves.items():
                if curve:
                    steps, values = [step for step, _ in curve], [value for _, value in curve]
                    axes.plot(steps, values, color=system_color(name, names), alpha=0.25, linewidth=0.8)
                    axes.plot(steps, running_mean(values), color=system_color(name, names), linewidth=1.6)
            if curves is bce:
                axes.axhline(math.log(2), color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
                placed = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "bottom"}
                axes.text(0.99, math.log(2), "ln 2: always one half", **placed, color=MUTED, fontsize=8)
            axes.set_title(title)
            axes.set_xlabel("step")
            axes.set_ylim(bottom=0)
            axes.grid()
        draw_legend(figure, {display_name(name, SYSTEMS): system_color(name, names) for name in names})

    return render_svg(draw, height_in=3.2)


def positions_figure(positions: Sequence[PositionScore]) -> Drawn | None:
    """Draw what each system decides before its CoT: its log-odds of a refusal's start and, beside it, the head's p.

    One line per system, one histogram per class of prompts.
    """
    if not positions:
        return None
    names = in_known_order((position.system for position in positions), SYSTEMS)
    logits = [position.refusal_logit for position in positions]
    has_heads = any(position.head_probability is not None for position in positions)

    def draw(figure: Figure) -> None:
        columns, widths = (2, (3, 2)) if has_heads else (1, (1,))
        grid = figure.subplots(len(names), columns, squeeze=False, sharex="col", width_ratios=widths)
        for line, name in zip(grid, names, strict=True):
            by_class = {expect: [p for p in positions if (p.system, p.expect) == (name, expect)] for expect in EXPECTS}
            own_logits = {expect: [p.refusal_logit for p in own] for expect, own in by_class.items()}
            draw_histograms(line[0], own_logits, _CLASSES, (min(logits), max(logits)))
            line[0].axvline(0, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
            line[0].set_title(display_name(name, SYSTEMS))
            if has_heads:
                heads = {
                    expect: [p.head_probability for p in own if p.head_probability is not None]
                    for expect, own in by_class.items()
                }
                draw_histograms(line[1], heads, _CLASSES, (0, 1))
                if not any(heads.values()):
                    line[1].text(0.5, 0.4, "no head", ha="center", transform=line[1].transAxes, color=MUTED)
        grid[-1][0].set_xlabel("log-odds of beginning as the trained refusals do")
        if has_heads:
            grid[-1][1].set_xlabel("p of the auxiliary head")
        shown = [expect for expect in EXPECTS if any(position.expect == expect for position in positions)]
        draw_legend(figure, {f"prompts {EXPECTS[expect]}": _CLASSES[expect] for expect in shown})

    return render_svg(draw, height_in=0.7 + 1.3 * len(names))


FIGURES: dict[str, Callable[[ReportData], Drawn | None]] = {
    "gap": lambda data: gap_figure(data.scores),
    "systems": lambda data: systems_figure(data.scores),
    "pareto": lambda data: pareto_figure(data.scores),
    "reliability": lambda data: reliability_figure(data.classifier),
    "training": lambda data: training_figure(data.histories),
    "positions": lambda data: positions_figure(data.positions),
    "probes": lambda data: probes_figure(data.inside),
    "directions": lambda data: directions_figure(data.inside),
    "plane": lambda data: plane_figure(data.inside),
    "sweep": lambda data: sweep_figure(data.sweep),
    "thoughts": lambda data: thoughts_figure(data.thoughts),
}
"""What a report can draw, by file stem; a function returns None where the data do not allow it."""
