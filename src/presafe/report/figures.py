"""The figures of a report, one pure function a figure: SVG text, or None where there is nothing to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.ticker import PercentFormatter

from presafe.report.drawing import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    RULE,
    TEAL,
    bar,
    histograms,
    key,
    paler,
    panel_grid,
    running_mean,
    svg,
    system_colour,
)
from presafe.report.inside import directions_figure, plane_figure, probes_figure
from presafe.report.labels import EXPECTS, METRICS, SUITES, SYSTEMS, label, ordered, size
from presafe.report.rows import HALVES, MODES, find, halves, judged, lead, suites, systems
from presafe.report.sensitivity import sweep_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from presafe.records import Expect, HistoryPoint, PositionScore, Score, Thinking
    from presafe.report.data import ReportData
    from presafe.signals.calibration import ClassifierCard

_DRAWN_HALVES = ("youden_j", "matched_refusal_start_auroc")
_CLASSES = {"refuse": ORANGE, "comply": BLUE, "answer": "#9aa0a8", "choice": "#6d8f3c", "code": "#b0577d"}


def figures(data: ReportData) -> dict[str, str]:
    """Every figure that the data allow, as SVG text by file stem."""
    drawn = {
        "gap": gap_figure(data.scores),
        "systems": systems_figure(data.scores),
        "pareto": pareto_figure(data.scores),
        "reliability": reliability_figure(data.classifier),
        "training": training_figure(data.histories),
        "positions": positions_figure(data.positions),
        "probes": probes_figure(data.inside),
        "directions": directions_figure(data.inside),
        "plane": plane_figure(data.inside),
        "sweep": sweep_figure(data.sweep),
    }
    return {name: text for name, text in drawn.items() if text is not None}


def gap_figure(scores: Sequence[Score]) -> str | None:
    """Refusals of the vanilla model with CoT on and off, a pair of bars a suite, with 95 % whiskers."""
    kinds: tuple[tuple[Expect, str], ...] = (("refuse", "refusal_rate"), ("comply", "over_refusal_rate"))
    groups: list[tuple[Expect, str, dict[Thinking, Score]]] = []
    for kind, metric in kinds:
        for suite in suites(scores, kind):
            found = {mode: score for mode in MODES if (score := find(scores, "vanilla", mode, suite, metric))}
            if found:
                groups.append((kind, suite, found))
    if not groups:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        names = []
        for place, (_, suite, found) in enumerate(groups):
            for mode, score in found.items():
                bar(axes, place + (-0.19 if mode == "on" else 0.19), score, ORANGE if mode == "on" else BLUE)
            names.append(f"{label(suite, SUITES)}\n{_sizes(scores, suite)}")
        for kind, _ in kinds:
            places = [place for place, group in enumerate(groups) if group[0] == kind]
            if places:
                middle, title = sum(places) / len(places), f"prompts {EXPECTS[kind]}"
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
        key(figure, {"chain of thought on": ORANGE, "chain of thought off": BLUE})

    return svg(draw, height_in=3.6)


def _sizes(scores: Sequence[Score], suite: str) -> str:
    """The vanilla model's "n = 100" or, where some answers were unjudged, "on: 45 of 100 judged" and so for off."""
    counts = {mode: pair for mode in MODES if (pair := judged(scores, "vanilla", mode, suite))[1]}
    if all(some == every for some, every in counts.values()):
        rates = (find(scores, "vanilla", mode, suite, lead(scores, suite) or "") for mode in counts)
        return f"n = {' / '.join(dict.fromkeys(size(score) for score in rates if score))}"
    return "\n".join(f"{mode}: {some} of {every} judged" for mode, (some, every) in counts.items())


def systems_figure(scores: Sequence[Score]) -> str | None:
    """Every system's leading rate on every suite, CoT on (full) above CoT off (pale), with 95 % whiskers."""
    return _systems_panels(scores, [(suite, metric) for suite in suites(scores) if (metric := lead(scores, suite))])


def halves_figure(scores: Sequence[Score]) -> str | None:
    """How well every system tells harmful prompts from harmless ones worded alike, as `systems_figure`."""
    return _systems_panels(scores, [column for column in halves(scores) if column[1] in _DRAWN_HALVES])


def _systems_panels(scores: Sequence[Score], panels: Sequence[tuple[str, str]]) -> str | None:
    """One panel a suite and metric, four a line; None where there is nothing to draw."""
    names = systems([score for score in scores if (score.suite, score.metric) in panels])
    if not names:
        return None
    columns = min(4, len(panels))
    lines = math.ceil(len(panels) / columns)

    def draw(figure: Figure) -> None:
        for axes, (suite, metric) in zip(panel_grid(figure, len(panels), columns), panels, strict=True):
            _systems_panel(axes, scores, names, suite, metric)
        key(figure, {"chain of thought on": MUTED, "chain of thought off": paler(MUTED)})

    return svg(draw, height_in=0.5 + lines * (0.75 + 0.5 * len(names)))


def _systems_panel(axes: Axes, scores: Sequence[Score], names: Sequence[str], suite: str, metric: str) -> None:
    """One suite: a pair of lying bars a system, the first system on top."""
    for place, name in enumerate(names):
        found = {mode: score for mode in MODES if (score := find(scores, name, mode, suite, metric))}
        for mode, score in found.items():
            shift = 0 if len(found) == 1 else -0.19 if mode == "on" else 0.19
            colour = system_colour(name, names)
            bar(axes, place + shift, score, colour if mode == "on" else paler(colour), lying=True)
    is_better = "higher" if metric in ("accuracy", "refusal_rate", *HALVES) else "lower"
    if metric in HALVES:
        chance = 0.5 if metric.endswith("_auroc") else 0
        axes.axvline(chance, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_title(label(suite, SUITES))
    axes.set_xlabel(f"{label(metric, METRICS)}\n({is_better} is better)".replace(": ", ":\n"))
    axes.set_xlim(-0.3 if metric in HALVES else 0, 1.32)
    axes.set_xticks([0, 0.5, 1])
    axes.xaxis.set_major_formatter("{x:.1f}" if metric in HALVES else PercentFormatter(1, symbol=" %"))
    axes.set_yticks(range(len(names)), [label(name, SYSTEMS).replace(" (", "\n(") for name in names], color=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x")


def pareto_figure(scores: Sequence[Score]) -> str | None:
    """Refusals of harmful prompts against their price: over-refusal, and accuracy. Better is up and to the right.

    A point a system and CoT mode, with 95 % lines. The dashed steps are the Pareto front: the systems that no other
    one beats in one of the two without losing in the other.
    """
    safety = suites(scores, "refuse")[:1]
    panels = [
        (name, metric)
        for name in (*suites(scores, "comply")[:1], *suites(scores, "answer")[:1])
        if (metric := lead(scores, name))
    ]
    names = systems(scores)
    drawn = {panel: _pareto_points(scores, names, safety[0], panel) if safety else [] for panel in panels}
    if max((len(points) for points in drawn.values()), default=0) < 2:
        return None

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(drawn), sharey=True, squeeze=False)
        for axes, ((suite, metric), points) in zip(grid.flat, drawn.items(), strict=True):
            is_price = metric != "accuracy"
            for name, mode, (x, x_low, x_high), (y, y_low, y_high) in points:
                colour = system_colour(name, names)
                axes.plot([x_low, x_high], [y, y], color=colour, linewidth=1, alpha=0.6)
                axes.plot([x, x], [y_low, y_high], color=colour, linewidth=1, alpha=0.6)
                axes.plot(x, y, "o", ms=8, mfc=colour if mode == "on" else "white", mec=colour, mew=1.6)
            places = [(x[0], y[0]) for _, _, x, y in points]
            front = pareto_front([(-x if is_price else x, y) for x, y in places])
            axes.plot(
                *zip(*sorted(places[i] for i in front), strict=True),
                color=MUTED,
                linewidth=1,
                linestyle=(0, (4, 3)),
                drawstyle="steps-post" if is_price else "steps-pre",
                zorder=0.5,
            )
            axes.set_xlim((1.04, -0.04) if is_price else (-0.04, 1.04))
            axes.set_ylim(-0.04, 1.04)
            axes.set_xlabel(f"{label(suite, SUITES)}: {label(metric, METRICS)}")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
            axes.grid()
        grid[0][0].set_ylabel(f"{label(safety[0], SUITES)}:\n{label(lead(scores, safety[0]) or '', METRICS)}")
        shown = dict.fromkeys(name for points in drawn.values() for name, *_ in points)
        key(figure, {label(name, SYSTEMS): system_colour(name, names) for name in shown})

    return svg(draw, height_in=3.8)


def _pareto_points(
    scores: Sequence[Score], names: Sequence[str], harmful: str, panel: tuple[str, str]
) -> list[tuple[str, Thinking, tuple[float, float, float], tuple[float, float, float]]]:
    """System, mode, and (value, low, high) of price and refusals, where both were measured."""
    return [
        (name, mode, x, y)
        for name in names
        for mode in MODES
        if (x := _span(find(scores, name, mode, *panel)))
        and (y := _span(find(scores, name, mode, harmful, lead(scores, harmful) or "")))
    ]


def _span(score: Score | None) -> tuple[float, float, float] | None:
    if score is None or score.value is None:
        return None
    low, high = (score.value if bound is None else bound for bound in (score.low, score.high))
    return score.value, low, high


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other one equals or exceeds in both coordinates and exceeds in one."""
    return [i for i, (x, y) in enumerate(points) if not any(a >= x and b >= y and (a > x or b > y) for a, b in points)]


def reliability_figure(card: ClassifierCard | None) -> str | None:
    """The classifier's mean p' against how often the teacher refused, bin by bin, above the bins' sizes."""
    bins = [each for each in card.bins if each.n > 0] if card else []
    points = [
        (each.confidence_mean, each.frequency)
        for each in bins
        if each.confidence_mean is not None and each.frequency is not None
    ]
    if not points:
        return None

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        upper.text(0.62, 0.55, "perfectly calibrated", color=MUTED, fontsize=8)
        upper.plot(*zip(*points, strict=True), color=TEAL, marker="o", linewidth=1.2)
        upper.set_ylim(-0.05, 1.05)
        upper.set_ylabel("teacher refused")
        for axis in (upper.xaxis, upper.yaxis):
            axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        upper.grid()
        for each in bins:
            middle, width = (each.low + each.high) / 2, each.high - each.low
            lower.bar(middle, each.n, width=0.86 * width, color=RULE)
            lower.text(middle, each.n, f"{each.n}", ha="center", va="bottom", fontsize=8, color=MUTED)
        lower.set_xlim(-0.03, 1.03)
        lower.set_ylim(0, 1.4 * max(each.n for each in bins))
        lower.set_yticks([])
        lower.set_ylabel("prompts")
        lower.set_xlabel("p′, the classifier's probability that the teacher refuses")

    return svg(draw, height_in=4.2, width_in=5.4)


def training_figure(histories: Mapping[str, Sequence[HistoryPoint]]) -> str | None:
    """L_SFT, and L_align and L_start where a system has them, by step: pale as logged, full as a running mean.

    Dashed: ln 2, the loss of a head that always says one half.
    """
    names = ordered((name for name, points in histories.items() if points), SYSTEMS)
    if not names:
        return None
    nll = {name: [(point.step, point.nll) for point in histories[name]] for name in names}
    bce = {name: [(p.step, p.bce) for p in histories[name] if p.bce is not None] for name in names}
    panels = [("L_SFT, next token (nats a token)", nll)]
    start = {name: [(p.step, p.start_bce) for p in histories[name] if p.start_bce is not None] for name in names}
    panels += [("L_align, head (nats a row)", bce)] if any(bce.values()) else []
    panels += [("L_start, first token (nats a row)", start)] if any(start.values()) else []

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(panels), squeeze=False)
        for axes, (title, curves) in zip(grid.flat, panels, strict=True):
            for name, curve in curves.items():
                if curve:
                    steps, values = zip(*curve, strict=True)
                    axes.plot(steps, values, color=system_colour(name, names), alpha=0.25, linewidth=0.8)
                    axes.plot(steps, running_mean(values), color=system_colour(name, names), linewidth=1.6)
            if curves is bce:
                axes.axhline(math.log(2), color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
                where = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "bottom"}
                axes.text(0.99, math.log(2), "ln 2: always one half", **where, color=MUTED, fontsize=8)
            axes.set_title(title)
            axes.set_xlabel("step")
            axes.set_ylim(bottom=0)
            axes.grid()
        key(figure, {label(name, SYSTEMS): system_colour(name, names) for name in names})

    return svg(draw, height_in=3.2)


def positions_figure(positions: Sequence[PositionScore]) -> str | None:
    """What each system decides before its CoT: its log-odds of a refusal's start and, beside it, the head's p.

    A line a system, a histogram a class of prompts.
    """
    if not positions:
        return None
    names = ordered((each.system for each in positions), SYSTEMS)
    logits = [each.refusal_logit for each in positions]
    has_heads = any(each.head_probability is not None for each in positions)

    def draw(figure: Figure) -> None:
        columns, widths = (2, (3, 2)) if has_heads else (1, (1,))
        grid = figure.subplots(len(names), columns, squeeze=False, sharex="col", width_ratios=widths)
        for line, name in zip(grid, names, strict=True):
            own = {expect: [p for p in positions if (p.system, p.expect) == (name, expect)] for expect in EXPECTS}
            values = {expect: [p.refusal_logit for p in points] for expect, points in own.items()}
            histograms(line[0], values, _CLASSES, (min(logits), max(logits)))
            line[0].axvline(0, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
            line[0].set_title(label(name, SYSTEMS))
            if has_heads:
                heads = {
                    expect: [p.head_probability for p in points if p.head_probability is not None]
                    for expect, points in own.items()
                }
                histograms(line[1], heads, _CLASSES, (0, 1))
                if not any(heads.values()):
                    line[1].text(0.5, 0.4, "no head", ha="center", transform=line[1].transAxes, color=MUTED)
        grid[-1][0].set_xlabel("log-odds of beginning as the trained refusals do")
        if has_heads:
            grid[-1][1].set_xlabel("p of the auxiliary head")
        shown = [expect for expect in EXPECTS if any(each.expect == expect for each in positions)]
        key(figure, {f"prompts {EXPECTS[expect]}": _CLASSES[expect] for expect in shown})

    return svg(draw, height_in=0.7 + 1.3 * len(names))
