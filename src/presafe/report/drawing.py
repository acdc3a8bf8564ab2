"""What the figures share: palette, style, bars with whiskers, histograms, and reproducible SVG text.

Text is drawn as paths, so that a figure looks the same on every machine, and the background is white, so that a figure
is readable on a dark page.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from presafe.report.formatting import format_value, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from presafe.records import Score

INK, MUTED, RULE = "#22262b", "#6b7280", "#d7dade"
ORANGE, BLUE, TEAL = "#d1603d", "#3f6c9b", "#17807a"
"""Orange and blue are distinct for color-blind readers."""

_SYSTEM_COLORS = {"vanilla": "#8b929b", "sft": "#d9a441", "presafe": TEAL, "random_labels": "#a184b5"}
_SPARE_COLORS = (BLUE, ORANGE, "#6d8f3c", "#b0577d")

_WIDTH_IN = 9.2
"""Width of the page's column, so that text in a figure is about as large as the text of the page."""

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


class Drawn(str):
    """A figure as SVG text, which can be drawn as PNG, too."""

    def __new__(cls, svg: str, draw: Callable[[Figure], None], size_in: tuple[float, float]) -> Drawn:
        """Keep what drew the figure; `size_in` is width and height in inches."""
        drawn = super().__new__(cls, svg)
        drawn._draw, drawn._size_in = draw, size_in
        return drawn

    _draw: Callable[[Figure], None]
    _size_in: tuple[float, float]

    def png(self) -> bytes:
        """Return the figure as PNG with 200 dots an inch, without a date or a creator."""
        with rc_context(_STYLE):
            figure = Figure(figsize=self._size_in, layout="constrained")
            self._draw(figure)
            image = io.BytesIO()
            figure.savefig(image, format="png", dpi=200, metadata={"Software": None})
        return image.getvalue()


def render_svg(draw: Callable[[Figure], None], *, height_in: float, width_in: float = _WIDTH_IN) -> Drawn:
    """Draw a figure and return it as SVG text without a date, a creator or random ids.

    Args:
        draw: Called with the empty figure.
        height_in: Height in inches.
        width_in: Width in inches.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        draw(figure)
        text = io.StringIO()
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=no_metadata)
    return Drawn(plain(text.getvalue()), draw, (width_in, height_in))  # labels also stand in its comments


def system_color(name: str, names: Sequence[str]) -> str:
    """Return a system's color; a system without its own takes one by its place in `names`.

    Args:
        name: The system.
        names: All systems in the figure.
    """
    others = [other for other in names if other not in _SYSTEM_COLORS]
    return _SYSTEM_COLORS.get(name) or _SPARE_COLORS[others.index(name) % len(_SPARE_COLORS)]


def pale_color(color: str) -> str:
    """Return the color mixed with white, 2 : 3. It is opaque, so that no grid line shows through.

    Args:
        color: "#rrggbb".
    """
    return "#" + "".join(f"{round(0.4 * int(color[i : i + 2], 16) + 0.6 * 255):02x}" for i in (1, 3, 5))


def panel_grid(figure: Figure, num: int, columns: int, *, shared: bool = True) -> list[Axes]:
    """Return panels in a grid; cells of the last line without a panel stay empty.

    Args:
        figure: The figure to draw on.
        num: Number of panels, at least one.
        columns: Panels per line.
        shared: Whether all have the same axes, with tick labels at the left and below the lowest panel of a column.
    """
    grid = figure.subplots(math.ceil(num / columns), columns, sharex=shared, sharey=shared, squeeze=False)
    for unused in grid.flat[num:]:
        unused.set_visible(False)
    for lowest in grid.flat[max(0, num - columns) : num]:
        lowest.tick_params(labelbottom=True)
    return list(grid.flat[:num])


def draw_legend(figure: Figure, colors: Mapping[str, str]) -> None:
    """Draw a legend above the figure: colored squares and what they stand for.

    Args:
        figure: The figure to draw on.
        colors: Color by name.
    """
    patches = [Patch(color=color, linewidth=0, label=name) for name, color in colors.items()]
    figure.legend(handles=patches, loc="outside upper left", ncols=len(patches), handlelength=1, handleheight=1)


def draw_bar(axes: Axes, place: float, score: Score, color: str, *, horizontal: bool = False) -> None:
    """Draw a bar of a score with its 95 % whisker and its value.

    Args:
        axes: Where to draw; the axis of the rate goes from 0 to at least 1.2.
        place: Place of the bar on the other axis.
        score: The rate; a score without a value is not drawn.
        color: Fill color.
        horizontal: Whether the bar grows to the right rather than upwards.
    """
    if score.value is None:
        return
    top = score.value
    if horizontal:
        axes.barh(place, score.value, height=0.34, color=color)
    else:
        axes.bar(place, score.value, width=0.34, color=color)
    if score.low is not None and score.high is not None:
        low, high = max(-1.0, score.low), min(1.0, score.high)  # Student's interval over few seeds can exceed the range
        top = max(top, high)
        places, ends = [place, place], [low, high]
        x, y = (ends, places) if horizontal else (places, ends)
        axes.plot(x, y, color=INK, linewidth=1, solid_capstyle="butt")
    if horizontal:
        axes.text(top + 0.03, place, format_value(score), ha="left", va="center", fontsize=8)
    else:
        axes.text(place, top + 0.02, format_value(score), ha="center", va="bottom", fontsize=8)


def draw_histograms(
    axes: Axes, classes: Mapping[str, Sequence[float]], colors: Mapping[str, str], span: tuple[float, float]
) -> None:
    """Draw histograms of several classes over one another, each summing to one, in thirty bins.

    Args:
        axes: Where to draw.
        classes: Values by class.
        colors: Color by class.
        span: Lowest and highest value of the bins.
    """
    low, high = span if span[1] > span[0] else (span[0] - 1, span[1] + 1)
    edges = [low + (high - low) * i / 30 for i in range(31)]
    for name, values in classes.items():
        if values:
            shape: dict[str, Any] = {"bins": edges, "weights": [1 / len(values)] * len(values)}
            axes.hist(values, **shape, color=colors[name], histtype="stepfilled", linewidth=0, alpha=0.4)
            axes.hist(values, **shape, color=colors[name], histtype="step", linewidth=1.2)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def running_mean(values: Sequence[float]) -> list[float]:
    """Return the centered mean over a twentieth of the series on either side, fewer at its ends."""
    reach = math.ceil(len(values) / 20)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]
