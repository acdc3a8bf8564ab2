"""Figures of studies that declared endpoints: each condition's rates, and the declared differences with the bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from colors import BLUE, GREY, RED, TEAL
from endpoints import COLUMNS, CONDITIONS, verdict
from matplotlib import pyplot as plt
from studies import scores, study

_VERDICTS = {"shown": TEAL, "refuted": RED, "not shown": BLUE, "one seed": GREY}


def endpoint_figure(name: str, *columns: tuple[str, str]) -> Callable[[], Any]:
    """Return the drawing of a study: bars of rates by condition on the left, declared lines on the right.

    Args:
        name: The study.
        columns: Suite and metric of each group of bars, as in `endpoints.COLUMNS`, and its color.
    """
    return lambda: _drawn(name, columns)


def _drawn(name: str, columns: tuple[tuple[str, str], ...]) -> Any:
    content = study(name)
    figure, (bars, lines) = plt.subplots(1, 2, figsize=(9.6, 3.9), gridspec_kw={"width_ratios": [1.25, 1]})
    width, conditions = 0.84 / len(columns), content["conditions"]
    for number, (column, color) in enumerate(columns):
        for place, condition in enumerate(conditions):
            suite, metric = column.split(":")
            row = scores(name)[condition, "on", suite, metric]
            value, low, high = (100 * min(max(row[end], 0), 1) for end in ("value", "low", "high"))
            y = place - 0.42 + (number + 0.5) * width
            bars.barh(y, value, width * 0.92, color=color, label=COLUMNS[column] if place == 0 else None)
            bars.plot([low, high], [y, y], color="#24282e", linewidth=1)
    bars.set_yticks(range(len(conditions)), [CONDITIONS[condition] for condition in conditions], fontsize=9)
    bars.invert_yaxis()
    bars.set_xlim(0, 100)
    bars.set_xlabel("percent, mean over seeds, 95 % interval")
    bars.legend(frameon=False, fontsize=9, loc="lower right")
    endpoints = content["endpoints"]
    for place, line in enumerate(endpoints):
        color = _VERDICTS[line["verdict"]]
        lines.plot([100 * line["low"], 100 * line["high"]], [place, place], color=color, linewidth=2)
        lines.plot(100 * line["difference"], place, "o", color=color)
        lines.text(100 * line["high"] + 2, place, verdict(line), va="center", fontsize=9, color=color)
    for bound in {line["endpoint"]["bound"] for line in endpoints}:
        lines.axvline(100 * bound, color="#8d949e", linewidth=1, linestyle="--")
    names = [
        f"{CONDITIONS[line['condition']]}\n{COLUMNS[line['endpoint']['suite'] + ':' + line['endpoint']['metric']]}"
        for line in endpoints
    ]
    lines.set_yticks(range(len(endpoints)), names, fontsize=9, multialignment="right")
    lines.set_ylim(len(endpoints) - 0.5, -0.5)
    lines.set_xlabel("points more than SFT only; dashed: the bound")
    for axis in (bars, lines):
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color="#eceef1")
        axis.set_axisbelow(True)
    figure.tight_layout()
    return figure
