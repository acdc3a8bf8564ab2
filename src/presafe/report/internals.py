"""Inside the systems: probes and directions by layer, prompts on a plane, and where in a response refusals happen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from presafe.report.drawing import (
    BLUE,
    MUTED,
    ORANGE,
    TEAL,
    Drawn,
    draw_legend,
    pale_color,
    panel_grid,
    render_svg,
    system_color,
)
from presafe.report.formatting import SUITES, SYSTEMS, display_name, format_interval, format_percent, in_known_order
from presafe.stats.intervals import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from presafe.records import InsideView, Place, RefusalPlaces, Thinking

_PLACES: tuple[Place, ...] = ("before", "thought", "answer", "nowhere")
_COLORS = (ORANGE, BLUE, TEAL, "#d9a441", "#a184b5", "#6d8f3c", "#b0577d", "#8b929b")

_MODES: tuple[Thinking, ...] = ("on", "off")


class LayerLine(NamedTuple):
    """One system and mode in the table of a layer: an AUROC per harmless suite, and the cosine of the two modes."""

    system: str
    thinking: Thinking
    layer: int
    cells: tuple[str, ...]
    cosine: str


class PlaceLine(NamedTuple):
    """One system on one suite: shares of its judged answers by where they refuse, and how many had no verdict."""

    suite: str
    system: str
    cells: tuple[str, ...]
    n: int
    num_unjudged: int


def place_lines(places: Sequence[RefusalPlaces]) -> list[PlaceLine]:
    """Return the table of places, suite by suite; a line without judged answers has dashes."""
    lines = []
    for suite in in_known_order((row.suite for row in places), SUITES):
        for row in (row for row in places if row.suite == suite):
            n = sum(row.counts[place] for place in _PLACES)
            shares = [wilson(row.counts[place], n) for place in _PLACES]
            cells = tuple(format_interval(share.value, share.low, share.high) for share in shares)
            lines.append(PlaceLine(suite, row.system, cells, n, row.counts["unjudged"]))
    return lines


def first_seeds(views: Sequence[InsideView]) -> list[InsideView]:
    """Return the first view of each system, in the order in which systems are shown."""
    names = in_known_order((view.system for view in views), SYSTEMS)
    return [next(view for view in views if view.system == name) for name in names]


def probed_suites(views: Sequence[InsideView]) -> list[str]:
    """Return the harmless suites that probes were applied to."""
    return in_known_order((probe.suite for view in views for probe in view.probes), SUITES)


def layer_lines(views: Sequence[InsideView]) -> list[LayerLine]:
    """Return the table of the layer that is also drawn as a plane: one line per system and mode."""
    lines = []
    suites = probed_suites(views)
    for view in first_seeds(views):
        for mode in _MODES:
            probes = {
                probe.suite: probe for probe in view.probes if (probe.layer, probe.thinking) == (view.layer, mode)
            }
            cells = tuple(
                format_interval(probe.value, probe.low, probe.high, is_rate=False)
                for probe in (probes[suite] for suite in suites)
            )
            lines.append(LayerLine(view.system, mode, view.layer, cells, _cosine_cell(view) if mode == "on" else ""))
    return lines


def _cosine_cell(view: InsideView) -> str:
    """Format the cosine of the view's layer."""
    cosine = next(cosine for cosine in view.cosines if cosine.layer == view.layer)
    return format_interval(cosine.value, cosine.low, cosine.high, is_rate=False)


def _legend(figure: Figure, names: Sequence[str]) -> None:
    """Draw a legend of systems."""
    draw_legend(figure, {display_name(name, SYSTEMS): system_color(name, names) for name in names})


def probes_figure(views: Sequence[InsideView]) -> Drawn | None:
    """Draw the AUROC of the probes by layer: a panel per harmless suite, a color per system; CoT on full, off dashed.

    Args:
        views: Of all systems; the first seed of each is drawn.

    Returns:
        SVG text, or None without views.
    """
    suites = probed_suites(views)
    if not suites:
        return None
    shown = first_seeds(views)
    names = [view.system for view in shown]
    columns = min(2, len(suites))
    num_lines = math.ceil(len(suites) / columns)

    def draw(figure: Figure) -> None:
        for axes, suite in zip(panel_grid(figure, len(suites), columns), suites, strict=True):
            for view in shown:
                _draw_probes(axes, view, suite, system_color(view.system, names))
            axes.axhline(0.5, color=MUTED, linewidth=0.8)
            axes.set_title(f"harmful against {display_name(suite, SUITES)}")
            axes.set_xlabel("layer")
            axes.set_ylabel("AUROC of a probe")
            axes.grid()
        _legend(figure, names)

    return render_svg(draw, height_in=0.5 + 2.6 * num_lines)


def _draw_probes(axes: Axes, view: InsideView, suite: str, color: str) -> None:
    """Draw one system's probes on one suite, in both modes."""
    for mode in _MODES:
        probes = [probe for probe in view.probes if (probe.suite, probe.thinking) == (suite, mode)]
        layers = [probe.layer for probe in probes]
        if mode == "on":
            low, high = [probe.low for probe in probes], [probe.high for probe in probes]
            axes.fill_between(layers, low, high, color=pale_color(color), lw=0, alpha=0.4)
        style = "-" if mode == "on" else (0, (2, 2))
        axes.plot(layers, [probe.value for probe in probes], color=color, linestyle=style, linewidth=1.4)


def directions_figure(views: Sequence[InsideView]) -> Drawn | None:
    """Draw the cosine of the directions with CoT on and off, by layer.

    Args:
        views: Of all systems; the first seed of each is drawn.

    Returns:
        SVG text, or None without views.
    """
    if not views:
        return None
    shown = first_seeds(views)
    names = [view.system for view in shown]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for view in shown:
            color, layers = system_color(view.system, names), [cosine.layer for cosine in view.cosines]
            low, high = [cosine.low for cosine in view.cosines], [cosine.high for cosine in view.cosines]
            axes.fill_between(layers, low, high, color=pale_color(color), linewidth=0, alpha=0.4)
            axes.plot(layers, [cosine.value for cosine in view.cosines], color=color, linewidth=1.6)
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_ylim(top=1.03)
        axes.set_xlabel("layer")
        axes.set_ylabel("cosine of the direction,\nCoT on against CoT off")
        axes.grid()
        _legend(figure, names)

    return render_svg(draw, height_in=3)


def plane_figure(views: Sequence[InsideView]) -> Drawn | None:
    """Draw prompts on the first two principal components of one layer, CoT on: a panel per system, a color per suite.

    Args:
        views: Of all systems; the first seed of each is drawn.

    Returns:
        SVG text, or None without points.
    """
    shown = first_seeds(views)
    suites = in_known_order((point.suite for view in shown for point in view.points), SUITES)
    if not suites:
        return None
    colors = {suite: _COLORS[place % len(_COLORS)] for place, suite in enumerate(suites)}
    columns = min(3, len(shown))
    num_lines = math.ceil(len(shown) / columns)

    def draw(figure: Figure) -> None:
        for axes, view in zip(panel_grid(figure, len(shown), columns, shared=False), shown, strict=True):
            _draw_plane(axes, view, colors)
        draw_legend(figure, {display_name(suite, SUITES): color for suite, color in colors.items()})

    return render_svg(draw, height_in=0.5 + 2.9 * num_lines)


def _draw_plane(axes: Axes, view: InsideView, colors: dict[str, str]) -> None:
    """Draw one system's panel."""
    for suite, color in colors.items():
        points = [point for point in view.points if point.suite == suite]
        if points:
            x, y = [point.x for point in points], [point.y for point in points]
            axes.plot(x, y, "o", color=color, ms=3.5, alpha=0.6, mew=0)
    axes.set_title(f"{display_name(view.system, SYSTEMS)}, layer {view.layer}")
    axes.set_xlabel(f"first component ({format_percent(view.shares[0])})")
    axes.set_ylabel(f"second component ({format_percent(view.shares[1])})")
    axes.set_xticks([])
    axes.set_yticks([])
