"""What the figures share: palette, style, bars with whiskers, histograms, and reproducible SVG text.

Text is drawn as paths, so that a figure looks the same on every machine, and on white, so that it can be read
on a dark page.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from presafe.report.labels import number, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from presafe.records import Score

INK, MUTED, RULE = "#22262b", "#6b7280", "#d7dade"
ORANGE, BLUE, TEAL = "#d1603d", "#3f6c9b", "#17807a"
"""Orange against blue stays apart for colour-blind eyes."""

_SYSTEMS = {"vanilla": "#8b929b", "sft": "#d9a441", "presafe": TEAL, "random_labels": "#a184b5"}
_OTHERS = (BLUE, ORANGE, "#6d8f3c", "#b0577d")

_WIDTH_IN = 9.2
"""Matches the page's column, so that text in a figure is about as large as text beside it."""

_STYLE: Any = {
    "svg.fonttype": "path",
    "text.parse_math": False,
    "svg.hashsalt": "presafe",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#eceef0",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.borderaxespad": 0,
}


def svg(draw: Callable[[Figure], None], *, height_in: float, width_in: float = _WIDTH_IN) -> str:
    """Draw a figure and return it as SVG text without a date, a creator or random ids.

    Args:
        draw: Fills the empty figure.
        height_in: Height in inches.
        width_in: Width in inches.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        draw(figure)
        text = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=nothing)
    return plain(text.getvalue())  # labels also stand in its comments


def system_colour(name: str, names: Sequence[str]) -> str:
    """A system's colour; one that has none of its own takes the next free one, by its place in `names`."""
    others = [each for each in names if each not in _SYSTEMS]
    return _SYSTEMS.get(name) or _OTHERS[others.index(name) % len(_OTHERS)]


def paler(colour: str) -> str:
    """The colour mixed with white, 2 : 3. Opaque, so that no grid shines through."""
    return "#" + "".join(f"{round(0.4 * int(colour[i : i + 2], 16) + 0.6 * 255):02x}" for i in (1, 3, 5))


def panel_grid(figure: Figure, num: int, columns: int, *, shared: bool = True) -> list[Axes]:
    """Panels in lines of so many; what the last line lacks is left free.

    Args:
        figure: What they are drawn on.
        num: How many there are, at least one.
        columns: How many a line.
        shared: All have the same axes, with ticks named at the left and below the lowest panel of a column.
    """
    grid = figure.subplots(math.ceil(num / columns), columns, sharex=shared, sharey=shared, squeeze=False)
    for free in grid.flat[num:]:
        free.set_visible(False)
    for lowest in grid.flat[max(0, num - columns) : num]:
        lowest.tick_params(labelbottom=True)
    return list(grid.flat[:num])


def key(figure: Figure, colours: Mapping[str, str]) -> None:
    """A legend above the figure: coloured squares and what they stand for."""
    patches = [Patch(color=colour, linewidth=0, label=name) for name, colour in colours.items()]
    figure.legend(handles=patches, loc="outside upper left", ncols=len(patches), handlelength=1, handleheight=1)


def bar(axes: Axes, place: float, score: Score, colour: str, *, lying: bool = False) -> None:
    """A bar of a score with its 95 % whisker and its value.

    Args:
        axes: Where to draw, its rate axis from 0 to at least 1.2.
        place: Where the bar stands on the other axis.
        score: The rate; one without a value is not drawn.
        colour: Fill.
        lying: Whether the bar grows to the right rather than upwards.
    """
    if score.value is None:
        return
    top = score.value
    if lying:
        axes.barh(place, score.value, height=0.34, color=colour)
    else:
        axes.bar(place, score.value, width=0.34, color=colour)
    if score.low is not None and score.high is not None:
        low, high = max(-1.0, score.low), min(1.0, score.high)  # Student's interval over few seeds reaches further
        top = max(top, high)
        ends = [place, place], [low, high]
        axes.plot(*(reversed(ends) if lying else ends), color=INK, linewidth=1, solid_capstyle="butt")
    if lying:
        axes.text(top + 0.03, place, number(score), ha="left", va="center", fontsize=8)
    else:
        axes.text(place, top + 0.02, number(score), ha="center", va="bottom", fontsize=8)


def histograms(
    axes: Axes, classes: Mapping[str, Sequence[float]], colours: Mapping[str, str], span: tuple[float, float]
) -> None:
    """Histograms of several classes over one another, each summing to one, over thirty bins of `span`."""
    low, high = span if span[1] > span[0] else (span[0] - 1, span[1] + 1)
    edges = [low + (high - low) * i / 30 for i in range(31)]
    for name, values in classes.items():
        if values:
            shape: dict[str, Any] = {"bins": edges, "weights": [1 / len(values)] * len(values)}
            axes.hist(values, **shape, color=colours[name], histtype="stepfilled", linewidth=0, alpha=0.4)
            axes.hist(values, **shape, color=colours[name], histtype="step", linewidth=1.2)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def running_mean(values: Sequence[float]) -> list[float]:
    """The centred mean over a twentieth of the series on either side, less at its ends."""
    reach = math.ceil(len(values) / 20)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]
