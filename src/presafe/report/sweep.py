"""A sweep over ways of sampling: a model's rates over temperature × top-p × top-k, as figure, table and sentences.

A panel per suite and CoT mode: temperature on the x-axis, a line per pair of top-p and top-k. All lines begin at the
greedy point, if there is one, because greedy decoding ignores both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.ticker import PercentFormatter

from presafe.report.drawing import BLUE, INK, ORANGE, TEAL, Drawn, draw_legend, panel_grid, render_svg
from presafe.report.formatting import METRICS, SUITES, SYSTEMS, VERBS, describe_prompts, display_name, format_estimate
from presafe.report.lookup import MODES, suites_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from presafe.records import SweepScore, Thinking

_SHOWN = ("not_refused_rate", "attack_success_rate", "over_refusal_rate", "accuracy")
"""Metrics that can be shown of a suite; the first of these that it has is shown."""
_COLORS = (TEAL, ORANGE, BLUE, "#d9a441", "#a184b5", "#6d8f3c", "#b0577d", "#8b929b")


class Filter(NamedTuple):
    """The settings of sampling that make a line of the figure."""

    top_p: float
    top_k: int

    def __str__(self) -> str:
        """Return the settings as people read them: "top-p 0.95, top-k 20"."""
        return f"top-p {self.top_p:g}, top-k {self.top_k or 'all'}"


class Panel(NamedTuple):
    """One suite in one mode: its cells, greedy first, then by temperature, top-p and top-k."""

    suite: str
    metric: str
    thinking: Thinking
    cells: tuple[SweepScore, ...]


def panels(sweep: Sequence[SweepScore]) -> list[Panel]:
    """Return the suites and modes of a sweep, each with the rate that is shown of it."""
    shown = []
    for suite in suites_in(sweep):
        present = {score.metric for score in sweep if score.suite == suite}
        metric = next((name for name in _SHOWN if name in present), None)
        for mode in MODES:
            cells = [cell for cell in sweep if (cell.suite, cell.metric, cell.thinking) == (suite, metric, mode)]
            if metric and cells:
                cells.sort(key=lambda cell: (cell.temperature, cell.top_p, cell.top_k))
                shown.append(Panel(suite, metric, mode, tuple(cells)))
    return shown


def sampling_name(cell: SweepScore) -> str:
    """Return a cell's settings as people read them: "T 0.6, top-p 0.95, top-k 20"; "greedy"."""
    return f"T {cell.temperature:g}, {_filter_of(cell)}" if cell.temperature else "greedy"


def _filter_of(cell: SweepScore) -> Filter:
    """Return the line that a cell belongs to."""
    return Filter(cell.top_p, cell.top_k)


def sweep_sentences(sweep: Sequence[SweepScore]) -> tuple[str, ...]:
    """Give the lowest and the highest rate of each panel, each with its cell and interval."""
    sentences = []
    for panel in panels(sweep):
        cells = [cell for cell in panel.cells if cell.value is not None]
        if not cells:
            continue
        low, high = (choose(cells, key=lambda cell: cell.value or 0.0) for choose in (min, max))
        sentences.append(
            f"With its chain of thought {panel.thinking}, {display_name(low.system, SYSTEMS)} {VERBS[panel.metric]} "
            f"between {format_estimate(low)} ({sampling_name(low)}) "
            f"and {format_estimate(high)} ({sampling_name(high)}) of {describe_prompts(panel.suite)}, "
            f"over {len(cells)} ways of sampling."
        )
    if sentences:
        sentences.append("The extremes of many cells lie further apart than two cells chosen beforehand would.")
    return tuple(sentences)


def sweep_figure(sweep: Sequence[SweepScore]) -> Drawn | None:
    """Draw the panels, with 95 % whiskers.

    Args:
        sweep: The rows of a sweep.

    Returns:
        SVG text, or None without panels.
    """
    shown = panels(sweep)
    if not shown:
        return None
    filters = sorted({_filter_of(cell) for cell in sweep if cell.temperature}) or [Filter(1.0, 0)]
    colors = {filter_: _COLORS[place % len(_COLORS)] for place, filter_ in enumerate(filters)}
    columns = min(2, len(shown))
    num_lines = -(-len(shown) // columns)
    temperatures = sorted({cell.temperature for cell in sweep})

    def draw(figure: Figure) -> None:
        for axes, panel in zip(panel_grid(figure, len(shown), columns), shown, strict=True):
            _draw_panel(axes, panel, colors, temperatures)
        draw_legend(figure, {str(filter_): color for filter_, color in colors.items()})

    return render_svg(draw, height_in=0.5 + 2.7 * num_lines)


def _draw_panel(axes: Axes, panel: Panel, colors: dict[Filter, str], temperatures: Sequence[float]) -> None:
    """Draw one suite in one mode."""
    step = 0.05 * max(temperatures[-1] - temperatures[0], 0.1) / len(colors)
    greedy = [cell for cell in panel.cells if not cell.temperature]
    for place, (filter_, color) in enumerate(colors.items()):
        shift = (place - (len(colors) - 1) / 2) * step  # whiskers side by side
        sampled = [cell for cell in panel.cells if cell.temperature and _filter_of(cell) == filter_]
        points = [
            (cell.temperature + (shift if cell.temperature else 0), cell)
            for cell in (*greedy, *sampled)
            if cell.value is not None
        ]
        axes.plot([x for x, _ in points], [cell.value or 0.0 for _, cell in points], "o-", color=color, ms=4, lw=1.3)
        for x, cell in points:
            if cell.low is not None and cell.high is not None:
                axes.plot([x, x], [cell.low, cell.high], color=color if cell.temperature else INK, linewidth=1)
    axes.set_title(f"{display_name(panel.suite, SUITES)}, CoT {panel.thinking}")
    axes.set_ylabel(display_name(panel.metric, METRICS))
    axes.set_xlabel("temperature")
    axes.set_xticks(temperatures)
    axes.tick_params(labelbottom=True)  # also in the upper lines
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid(axis="y")
