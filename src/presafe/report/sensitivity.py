"""Decoding sensitivity: a model's rates over temperature × top-p × top-k, as a figure, a table and sentences.

A panel a suite and CoT mode: temperature to the right, a line a pair of top-p and top-k. All lines begin at the greedy
point, where there is one, because greedy decoding knows neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.ticker import PercentFormatter

from presafe.report.drawing import BLUE, INK, ORANGE, TEAL, key, panel_grid, svg
from presafe.report.labels import METRICS, SUITES, SYSTEMS, estimate, label, noun
from presafe.report.rows import MODES, suites

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from presafe.records import SweepScore, Thinking

_SHOWN = ("attack_success_rate", "over_refusal_rate", "accuracy")
"""What is shown of a suite: the first of these that it has."""
_COLOURS = (TEAL, ORANGE, BLUE, "#d9a441", "#a184b5", "#6d8f3c", "#b0577d", "#8b929b")
_VERBS = {"attack_success_rate": "gives in to", "over_refusal_rate": "wrongly refuses", "accuracy": "solves"}


class Panel(NamedTuple):
    """One suite in one mode: its cells, greedy first, then by temperature, top-p and top-k."""

    suite: str
    metric: str
    thinking: Thinking
    cells: tuple[SweepScore, ...]


def panels(sweep: Sequence[SweepScore]) -> list[Panel]:
    """The suites and modes of a sweep."""
    found = []
    for suite in suites(sweep):
        metrics = {score.metric for score in sweep if score.suite == suite}
        metric = next((each for each in _SHOWN if each in metrics), None)
        for mode in MODES:
            cells = [s for s in sweep if (s.suite, s.metric, s.thinking) == (suite, metric, mode)]
            if metric and cells:
                cells.sort(key=lambda cell: (cell.temperature, cell.top_p, cell.top_k))
                found.append(Panel(suite, metric, mode, tuple(cells)))
    return found


def sampling_name(cell: SweepScore) -> str:
    """A cell as a person reads it: "T 0.6, top-p 0.95, top-k 20"; "greedy"."""
    return f"T {cell.temperature:g}, {_line_name((cell.top_p, cell.top_k))}" if cell.temperature else "greedy"


def sweep_sentences(sweep: Sequence[SweepScore]) -> tuple[str, ...]:
    """A sentence a panel: the lowest and the highest rate, each with its cell and interval."""
    said = []
    for panel in panels(sweep):
        cells = [cell for cell in panel.cells if cell.value is not None]
        if not cells:
            continue
        low, high = (pick(cells, key=lambda cell: cell.value or 0.0) for pick in (min, max))
        who = label(low.system, SYSTEMS)
        said.append(
            f"With its chain of thought {panel.thinking}, {who} {_VERBS[panel.metric]} between {estimate(low)} "
            f"({sampling_name(low)}) and {estimate(high)} ({sampling_name(high)}) of {noun(panel.suite)}, "
            f"over {len(cells)} ways of sampling."
        )
    if said:
        said.append("The extremes of many cells lie further apart than two cells chosen beforehand would.")
    return tuple(said)


def sweep_figure(sweep: Sequence[SweepScore]) -> str | None:
    """The panels, with 95 % whiskers."""
    drawn = panels(sweep)
    if not drawn:
        return None
    names = sorted({(cell.top_p, cell.top_k) for cell in sweep if cell.temperature}) or [(1.0, 0)]
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}
    columns = min(2, len(drawn))
    lines = -(-len(drawn) // columns)
    temperatures = sorted({cell.temperature for cell in sweep})

    def draw(figure: Figure) -> None:
        for axes, panel in zip(panel_grid(figure, len(drawn), columns), drawn, strict=True):
            _draw_panel(axes, panel, colours, temperatures)
        key(figure, {_line_name(name): colour for name, colour in colours.items()})

    return svg(draw, height_in=0.5 + 2.7 * lines)


def _draw_panel(axes: Axes, panel: Panel, colours: dict[tuple[float, int], str], temperatures: Sequence[float]) -> None:
    step = 0.05 * max(temperatures[-1] - temperatures[0], 0.1) / len(colours)
    greedy = [cell for cell in panel.cells if not cell.temperature]
    for place, (name, colour) in enumerate(colours.items()):
        shift = (place - (len(colours) - 1) / 2) * step  # whiskers side by side
        drawn = [cell for cell in panel.cells if cell.temperature and (cell.top_p, cell.top_k) == name]
        points = [
            (c.temperature + (shift if c.temperature else 0), c) for c in (*greedy, *drawn) if c.value is not None
        ]
        axes.plot([x for x, _ in points], [cell.value or 0.0 for _, cell in points], "o-", color=colour, ms=4, lw=1.3)
        for x, cell in points:
            if cell.low is not None and cell.high is not None:
                axes.plot([x, x], [cell.low, cell.high], color=colour if cell.temperature else INK, linewidth=1)
    axes.set_title(f"{label(panel.suite, SUITES)}, CoT {panel.thinking}")
    axes.set_ylabel(label(panel.metric, METRICS))
    axes.set_xlabel("temperature")
    axes.set_xticks(temperatures)
    axes.tick_params(labelbottom=True)  # in the upper lines, too
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid(axis="y")


def _line_name(name: tuple[float, int]) -> str:
    top_p, top_k = name
    return f"top-p {top_p:g}, top-k {top_k or 'all'}"
