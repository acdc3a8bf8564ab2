"""Refusals of harmful prompts against their price, and the Pareto front of the systems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.ticker import PercentFormatter

from presafe.report.drawing import MUTED, Drawn, draw_legend, render_svg, system_color
from presafe.report.formatting import METRICS, SUITES, SYSTEMS, display_name
from presafe.report.lookup import MODES, Column, find_score, leading_metric, suites_in, systems_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from presafe.records import Score, Thinking


class _Span(NamedTuple):
    """A rate with its bounds; a missing bound is the rate itself."""

    value: float
    low: float
    high: float


class _ParetoPoint(NamedTuple):
    """One system and mode in the Pareto figure."""

    system: str
    thinking: Thinking
    price: _Span
    refusals: _Span


def pareto_figure(scores: Sequence[Score]) -> Drawn | None:
    """Draw refusals of harmful prompts against their price: over-refusal, and accuracy. Better is up and to the right.

    A point per system and CoT mode, with 95 % lines. The dashed steps are the Pareto front: the systems that no other
    system beats in one of the two without losing in the other.
    """
    safety = suites_in(scores, "refuse")[:1]
    panels = [
        (suite, metric)
        for suite in (*suites_in(scores, "comply")[:1], *suites_in(scores, "answer")[:1])
        if (metric := leading_metric(scores, suite))
    ]
    names = systems_in(scores)
    drawn = {panel: _pareto_points(scores, names, safety[0], panel) if safety else [] for panel in panels}
    if max((len(points) for points in drawn.values()), default=0) < 2:
        return None

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(drawn), sharey=True, squeeze=False)
        for axes, ((suite, metric), points) in zip(grid.flat, drawn.items(), strict=True):
            _draw_pareto(axes, points, names, is_price=metric != "accuracy")
            axes.set_xlabel(f"{display_name(suite, SUITES)}: {display_name(metric, METRICS)}")
        safety_metric = display_name(leading_metric(scores, safety[0]) or "", METRICS)
        grid[0][0].set_ylabel(f"{display_name(safety[0], SUITES)}:\n{safety_metric}")
        shown = dict.fromkeys(point.system for points in drawn.values() for point in points)
        draw_legend(figure, {display_name(name, SYSTEMS): system_color(name, names) for name in shown})

    return render_svg(draw, height_in=3.8)


def _draw_pareto(axes: Axes, points: Sequence[_ParetoPoint], names: Sequence[str], *, is_price: bool) -> None:
    """Draw one panel: the points and their front. A price is better when lower, so its axis runs backwards."""
    for point in points:
        color = system_color(point.system, names)
        x, y = point.price, point.refusals
        axes.plot([x.low, x.high], [y.value, y.value], color=color, linewidth=1, alpha=0.6)
        axes.plot([x.value, x.value], [y.low, y.high], color=color, linewidth=1, alpha=0.6)
        fill = color if point.thinking == "on" else "white"
        axes.plot(x.value, y.value, "o", ms=8, mfc=fill, mec=color, mew=1.6)
    places = [(point.price.value, point.refusals.value) for point in points]
    front = sorted(places[i] for i in pareto_front([(-x if is_price else x, y) for x, y in places]))
    axes.plot(
        [x for x, _ in front],
        [y for _, y in front],
        color=MUTED,
        linewidth=1,
        linestyle=(0, (4, 3)),
        drawstyle="steps-post" if is_price else "steps-pre",
        zorder=0.5,
    )
    axes.set_xlim((1.04, -0.04) if is_price else (-0.04, 1.04))
    axes.set_ylim(-0.04, 1.04)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid()


def _pareto_points(scores: Sequence[Score], names: Sequence[str], harmful: str, panel: Column) -> list[_ParetoPoint]:
    """Return a point for each system and mode of which both price and refusals were measured."""
    suite, metric = panel
    points = []
    for name in names:
        for mode in MODES:
            price = _span(find_score(scores, name, mode, suite, metric))
            refusals = _span(find_score(scores, name, mode, harmful, leading_metric(scores, harmful)))
            if price and refusals:
                points.append(_ParetoPoint(name, mode, price, refusals))
    return points


def _span(score: Score | None) -> _Span | None:
    """Return a rate with its bounds, or None if it has no value."""
    if score is None or score.value is None:
        return None
    low, high = (score.value if bound is None else bound for bound in (score.low, score.high))
    return _Span(score.value, low, high)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points that no other point equals or exceeds in both coordinates and exceeds in one."""
    return [i for i, (x, y) in enumerate(points) if not any(a >= x and b >= y and (a > x or b > y) for a, b in points)]
