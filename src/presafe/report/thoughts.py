"""The figure of success against the length of the thought."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.ticker import PercentFormatter

from presafe.report.attacks import is_attacked
from presafe.report.drawing import INK, Drawn, draw_legend, panel_grid, render_svg, system_color
from presafe.report.formatting import SUITES, SYSTEMS, display_name, in_known_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from presafe.records import ThoughtBin

_COLUMNS = 3


def thoughts_figure(bins: Sequence[ThoughtBin]) -> Drawn | None:
    """Draw how often attacks succeed by the words of the thought: a panel per suite, a line per system, 95 % whiskers.

    Args:
        bins: The bins of all systems; without a suite under attack nothing is drawn.
    """
    if not any(is_attacked(row.suite) for row in bins):
        return None
    suites = in_known_order((row.suite for row in bins), SUITES)
    names = in_known_order((row.system for row in bins), SYSTEMS)
    starts = sorted({row.words for row in bins})

    def draw(figure: Figure) -> None:
        panels = panel_grid(figure, len(suites), min(_COLUMNS, len(suites)))
        for axes, suite in zip(panels, suites, strict=True):
            for number, name in enumerate(names):
                own = [row for row in bins if (row.suite, row.system) == (suite, name) and row.value is not None]
                shift = 0.08 * (number - (len(names) - 1) / 2)  # so that whiskers do not cover one another
                places = [starts.index(row.words) + shift for row in own]
                axes.plot(places, [row.value or 0.0 for row in own], "o-", ms=3.5, color=system_color(name, names))
                for place, row in zip(places, own, strict=True):
                    if row.low is not None and row.high is not None:
                        axes.plot([place, place], [row.low, row.high], color=system_color(name, names), alpha=0.5)
            axes.set_title(display_name(suite, SUITES), fontsize=8)
            axes.set_xticks(range(len(starts)), [bin_name(start) for start in starts], color=INK, fontsize=7)
            axes.set_ylim(-0.04, 1.04)
            axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
            axes.grid(axis="y")
        for axes in panels[-_COLUMNS:]:
            axes.set_xlabel("words of the thought")
        draw_legend(figure, {display_name(name, SYSTEMS): system_color(name, names) for name in names})

    return render_svg(draw, height_in=0.6 + 1.9 * math.ceil(len(suites) / _COLUMNS))


def bin_name(start: int) -> str:
    """Return what a bin of thoughts is called: "0", "1–15", "16–31" and so on.

    Args:
        start: The least number of words in it.
    """
    return "0" if start == 0 else f"{start}–{15 if start == 1 else 2 * start - 1}"
