"""Inside the systems: probes and directions by layer, prompts on a plane, and where in a response refusals happen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from presafe.intervals import wilson
from presafe.report.drawing import BLUE, MUTED, ORANGE, TEAL, key, paler, panel_grid, svg, system_colour
from presafe.report.labels import SUITES, SYSTEMS, interval, label, ordered, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from presafe.records import InsideView, Place, RefusalPlaces, Thinking

_PLACES: tuple[Place, ...] = ("before", "thought", "answer", "nowhere")
_COLOURS = (ORANGE, BLUE, TEAL, "#d9a441", "#a184b5", "#6d8f3c", "#b0577d", "#8b929b")


class LayerLine(NamedTuple):
    """One system and mode in the table of one layer: an AUROC a harmless suite, and the cosine of the two modes."""

    system: str
    thinking: Thinking
    layer: int
    cells: tuple[str, ...]
    cosine: str


class PlaceLine(NamedTuple):
    """One system on one suite: shares of its judged answers by where they refuse, and how many had none."""

    suite: str
    system: str
    cells: tuple[str, ...]
    n: int
    num_unjudged: int


def place_lines(places: Sequence[RefusalPlaces]) -> list[PlaceLine]:
    """The table of places, suite by suite; those with nothing judged have dashes."""
    lines = []
    for suite in ordered((each.suite for each in places), SUITES):
        for each in (own for own in places if own.suite == suite):
            n = sum(each.counts[place] for place in _PLACES)
            cells = tuple(interval(*wilson(each.counts[place], n)[:3]) for place in _PLACES)
            lines.append(PlaceLine(suite, each.system, cells, n, each.counts["unjudged"]))
    return lines


def first_seeds(views: Sequence[InsideView]) -> list[InsideView]:
    """The first view of each system, in the order in which systems are shown."""
    names = ordered((view.system for view in views), SYSTEMS)
    return [next(view for view in views if view.system == name) for name in names]


def read_suites(views: Sequence[InsideView]) -> list[str]:
    """The harmless suites that probes were read on."""
    return ordered((probe.suite for view in views for probe in view.probes), SUITES)


def layer_lines(views: Sequence[InsideView]) -> list[LayerLine]:
    """The table of the layer that is also drawn as a plane: a line a system and mode."""
    lines = []
    suites = read_suites(views)
    for view in first_seeds(views):
        turned = next(each for each in view.cosines if each.layer == view.layer)
        for mode in ("on", "off"):
            found = {p.suite: p for p in view.probes if (p.layer, p.thinking) == (view.layer, mode)}
            cells = tuple(interval(p.value, p.low, p.high, is_rate=False) for p in (found[name] for name in suites))
            cosine = interval(turned.value, turned.low, turned.high, is_rate=False) if mode == "on" else ""
            lines.append(LayerLine(view.system, mode, view.layer, cells, cosine))
    return lines


def probes_figure(views: Sequence[InsideView]) -> str | None:
    """AUROC of the probes by layer: a panel a harmless suite, a colour a system; CoT on full, off dashed."""
    suites = read_suites(views)
    if not suites:
        return None
    shown = first_seeds(views)
    names = [view.system for view in shown]
    columns = min(2, len(suites))
    lines = math.ceil(len(suites) / columns)

    def draw(figure: Figure) -> None:
        for axes, suite in zip(panel_grid(figure, len(suites), columns), suites, strict=True):
            for view in shown:
                colour = system_colour(view.system, names)
                for mode in ("on", "off"):
                    found = [p for p in view.probes if (p.suite, p.thinking) == (suite, mode)]
                    layers = [p.layer for p in found]
                    if mode == "on":
                        axes.fill_between(
                            layers,
                            [p.low for p in found],
                            [p.high for p in found],
                            color=paler(colour),
                            lw=0,
                            alpha=0.4,
                        )
                    style = "-" if mode == "on" else (0, (2, 2))
                    axes.plot(layers, [p.value for p in found], color=colour, linestyle=style, linewidth=1.4)
            axes.axhline(0.5, color=MUTED, linewidth=0.8)
            axes.set_title(f"harmful against {label(suite, SUITES)}")
            axes.set_xlabel("layer")
            axes.set_ylabel("AUROC of a probe")
            axes.grid()
        key(figure, {label(name, SYSTEMS): system_colour(name, names) for name in names})

    return svg(draw, height_in=0.5 + 2.6 * lines)


def directions_figure(views: Sequence[InsideView]) -> str | None:
    """Cosine of the directions with CoT on and off, by layer."""
    if not views:
        return None
    shown = first_seeds(views)
    names = [view.system for view in shown]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for view in shown:
            colour, layers = system_colour(view.system, names), [each.layer for each in view.cosines]
            low, high = [each.low for each in view.cosines], [each.high for each in view.cosines]
            axes.fill_between(layers, low, high, color=paler(colour), linewidth=0, alpha=0.4)
            axes.plot(layers, [each.value for each in view.cosines], color=colour, linewidth=1.6)
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_ylim(top=1.03)
        axes.set_xlabel("layer")
        axes.set_ylabel("cosine of the direction,\nCoT on against CoT off")
        axes.grid()
        key(figure, {label(name, SYSTEMS): system_colour(name, names) for name in names})

    return svg(draw, height_in=3)


def plane_figure(views: Sequence[InsideView]) -> str | None:
    """Prompts on the first two principal components of one layer, CoT on: a panel a system, a colour a suite."""
    shown = first_seeds(views)
    suites = ordered((point.suite for view in shown for point in view.points), SUITES)
    if not suites:
        return None
    colours = {suite: _COLOURS[place % len(_COLOURS)] for place, suite in enumerate(suites)}
    columns = min(3, len(shown))
    lines = math.ceil(len(shown) / columns)

    def draw(figure: Figure) -> None:
        for axes, view in zip(panel_grid(figure, len(shown), columns, shared=False), shown, strict=True):
            _draw_plane(axes, view, colours)
        key(figure, {label(suite, SUITES): colour for suite, colour in colours.items()})

    return svg(draw, height_in=0.5 + 2.9 * lines)


def _draw_plane(axes: Axes, view: InsideView, colours: dict[str, str]) -> None:
    for suite, colour in colours.items():
        points = [(point.x, point.y) for point in view.points if point.suite == suite]
        if points:
            axes.plot(*zip(*points, strict=True), "o", color=colour, ms=3.5, alpha=0.6, mew=0)
    axes.set_title(f"{label(view.system, SYSTEMS)}, layer {view.layer}")
    axes.set_xlabel(f"first component ({percent(view.shares[0])})")
    axes.set_ylabel(f"second component ({percent(view.shares[1])})")
    axes.set_xticks([])
    axes.set_yticks([])
