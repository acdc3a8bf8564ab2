"""Figures of what benchmarks/ has measured, drawn from its committed records."""

from __future__ import annotations

from typing import Any

import gate_tables
import speed
from colors import GOLD, GREY, RED, TEAL
from matplotlib import pyplot as plt


def name_rows(axis: Any, names: list[str]) -> None:
    """Name the rows of a figure from the top on, with a grid behind them."""
    axis.set_yticks(range(len(names)), names)
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.grid(axis="x", color="#eceef1")
    axis.set_axisbelow(True)


def speeds() -> Any:
    """Draw PreSafe's seconds over those of each other side, with the range of the turns, the floor and the goal."""
    record = speed.record()
    assert record is not None, "benchmarks/results/bench.json is missing: `make bench` makes it"
    ratios = [ratio for ratio in speed.ratios(record) if ratio.unit == "seconds"]
    figure, axis = plt.subplots(figsize=(9.6, 1.0 + 0.36 * len(ratios)))
    for place, ratio in enumerate(ratios):
        axis.plot([ratio.low, ratio.high], [place, place], color=TEAL, linewidth=2)
        axis.plot(
            ratio.median, place, "o", color=TEAL, markersize=7, label="median of the turns" if not place else None
        )
        for value, color, label, half in (
            (ratio.floor, GREY, "floor: no way is faster", 0.4),
            (ratio.goal, GOLD, "goal", 0.22),
        ):
            if value is not None:
                axis.plot([value, value], [place - half, place + half], color=color, linewidth=2.5, label=label)
    axis.axvline(1, color="#24282e", linewidth=1)
    name_rows(axis, [f"{ratio.what}, against {ratio.other}" for ratio in ratios])
    axis.set_xlim(0, 1.4)
    axis.set_xlabel("seconds of PreSafe / seconds of the other side (left of 1: PreSafe is faster)")
    handles = {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    axis.legend(handles.values(), handles.keys(), frameon=False, loc="lower right", fontsize=10)
    figure.tight_layout()
    return figure


def promised() -> Any:
    """Draw wrong refusals where 5 % are promised, by suite: by a threshold of the run's queries and of its own kind."""
    rows = gate_tables.wrong_refusals(0.05)
    suites = list(dict.fromkeys(row["suite"] for row in rows))
    figure, axis = plt.subplots(figsize=(9.6, 3.0))
    for kind, color, label, shift in (
        ("run", RED, "calibrated on the run's own queries", -0.13),
        ("halves", TEAL, "calibrated on queries of the same kind", 0.13),
    ):
        drawn = [row for row in rows if row["calibrated_on"] == kind]
        for number, row in enumerate(drawn):
            place = suites.index(row["suite"]) + shift
            axis.plot([100 * row["low"], 100 * row["high"]], [place, place], color=color, linewidth=2)
            axis.plot(100 * row["value"], place, "o", color=color, markersize=7, label=None if number else label)
    axis.axvline(5, color="#24282e", linewidth=1, label="promised")
    name_rows(axis, suites)
    axis.set_xlim(0)
    axis.set_xlabel("harmless prompts refused (%), without a tail, with 95 % intervals")
    axis.legend(frameon=False, loc="lower right", fontsize=10)
    figure.tight_layout()
    return figure
