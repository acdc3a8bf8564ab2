"""Figures of README.md and docs/, drawn as SVG from the committed JSON of the studies into docs/assets/.

`python tools/docs/figures.py` draws all of them again. The same JSON gives the same numbers in the figure's text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from paths import DOCS, STUDIES
from results import HARMFUL, HARMLESS, TITLES, demo_scores, scores

mpl.use("svg")
from matplotlib import pyplot as plt

ASSETS = DOCS / "assets"
Row = tuple[str, str, str, str]
"""A system of a study, its CoT mode, what the legend calls it, its color."""
GREY, RED, BLUE, GOLD, TEAL, PLUM = "#8d949e", "#d1603d", "#3f6c9c", "#dca744", "#15827c", "#8a5a83"
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "presafe",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#c5c9cf",
    "axes.labelcolor": "#3d434b",
    "xtick.color": "#3d434b",
    "ytick.color": "#3d434b",
}
VANILLA_ON = ("vanilla", "on", "as it came, CoT on", RED)
VANILLA_OFF = ("vanilla", "off", "as it came, CoT off", BLUE)
SFT = ("sft", "on", "SFT only, CoT on", GOLD)
PRESAFE = ("presafe", "on", "PreSafe + L_start, CoT on", TEAL)


def bars(measured: dict[Any, dict[str, Any]], rows: list[Row], harmful: list[str], harmless: list[str]) -> Any:
    """Draw refusal rates as grouped bars: harmful prompts on the left, harmless ones on the right.

    Args:
        measured: Scores by (system, CoT mode, suite, metric).
        rows: Systems, one bar each in every group.
        harmful: Suites to refuse.
        harmless: Suites to comply with.
    """
    figure, axes = plt.subplots(
        1, 2, figsize=(9.6, 3.6), sharey=True, gridspec_kw={"width_ratios": [len(harmful), len(harmless)]}
    )
    width = 0.84 / len(rows)
    panels = [
        (harmful, "refusal_rate", "Harmful prompts refused (higher is better)"),
        (harmless, "over_refusal_rate", "Harmless prompts refused (lower is better)"),
    ]
    for axis, (suites, metric, title) in zip(axes, panels, strict=True):
        for number, (system, mode, label, color) in enumerate(rows):
            for place, suite in enumerate(suites):
                score = measured[system, mode, suite, metric]
                value, low, high = (100 * min(max(score[end], 0.0), 1.0) for end in ("value", "low", "high"))
                x = place - 0.42 + (number + 0.5) * width
                axis.bar(x, value, width * 0.92, color=color, label=label if place == 0 else None)
                axis.plot([x, x], [low, high], color="#24282e", linewidth=1)
                axis.text(x, max(high, value) + 2, f"{value:.0f}", ha="center", fontsize=9, color="#24282e")
        axis.set_xticks(range(len(suites)), [TITLES.get(suite, suite) for suite in suites])
        axis.tick_params(axis="x", length=0)
        axis.set_title(title, fontsize=11, loc="left", color="#24282e", pad=10)
        axis.set_ylim(0, 112)
        axis.set_yticks([0, 25, 50, 75, 100], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        axis.grid(axis="y", color="#eceef1")
        axis.set_axisbelow(True)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=min(len(rows), 5), frameon=False, fontsize=10)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    return figure


def published(study: str, rows: list[Row]) -> Callable[[], Any]:
    """Return the drawing of a study's refusal rates on its published suites."""

    def draw() -> Any:
        measured = scores(study)
        harmful = [suite for suite in HARMFUL if ("vanilla", "on", suite, "refusal_rate") in measured]
        harmless = [suite for suite in HARMLESS if ("vanilla", "on", suite, "over_refusal_rate") in measured]
        return bars(measured, rows, harmful, harmless)

    return draw


def demo_full() -> Any:
    """Draw the demo with three seeds and the control."""
    TITLES.update(
        smolthink_harmful="harmful", smolthink_benign="benign", smolthink_borderline="borderline"
    )  # the project's own prompts
    rows = [VANILLA_ON, VANILLA_OFF, SFT, PRESAFE, ("random_labels", "on", "random labels, CoT on", PLUM)]
    return bars(demo_scores("full.json"), rows, ["smolthink_harmful"], ["smolthink_benign", "smolthink_borderline"])


def trade() -> Any:
    """Draw what is refused of harmful prompts against what is of harmless ones, at three operating points."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.9), sharey=True)
    pairs = [("jailbreakbench", "jailbreakbench_benign", "JailbreakBench"), ("xstest_unsafe", "xstest_safe", "XSTest")]
    measured = scores("operating_points")
    for axis, (harmful, harmless, title) in zip(axes, pairs, strict=True):
        for system, label, color in (("sft", "SFT only", GOLD), ("presafe", "PreSafe + L_start", TEAL)):
            names = [system, f"{system}-rate_5", f"{system}-rate_2.5"]
            x = [100 * measured[name, "on", harmless, "over_refusal_rate"]["value"] for name in names]
            y = [100 * measured[name, "on", harmful, "refusal_rate"]["value"] for name in names]
            axis.plot(x, y, "o-", color=color, label=label, linewidth=2)
            for at_x, at_y, rate in zip(x, y, ("teacher's", ".05", ".025"), strict=True):
                axis.annotate(rate, (at_x, at_y), (6, -12), textcoords="offset points", fontsize=9, color="#3d434b")
        axis.set_xlim(0, 52)
        axis.set_ylim(0, 100)
        axis.set_xlabel("harmless half wrongly refused, %")
        axis.set_title(title, fontsize=11, loc="left", pad=10)
        axis.grid(color="#eceef1")
    axes[0].set_ylabel("harmful half refused, %")
    axes[0].legend(frameon=False, loc="lower right")
    figure.tight_layout()
    return figure


def cosines() -> Any:
    """Draw, by block, the cosine of the direction from harmless to harmful between CoT on and off."""
    figure, axis = plt.subplots(figsize=(9.6, 3.6))
    lines = [("sft-seed0", "vanilla", "as it came", GREY), ("sft-seed0", "sft", "SFT only", GOLD)]
    lines += [("presafe-seed0", "presafe", "PreSafe + L_start", TEAL)]
    for file, system, label, color in lines:
        views = json.loads((STUDIES / "shipped" / "inside" / f"{file}.json").read_text(encoding="utf-8"))["systems"]
        view = next(view for view in views if view["system"] == system)
        rows = sorted(view["cosines"], key=lambda row: row["layer"])
        layers = [row["layer"] for row in rows]
        axis.plot(layers, [row["value"] for row in rows], color=color, label=label, linewidth=2)
        axis.fill_between(
            layers, [row["low"] for row in rows], [row["high"] for row in rows], color=color, alpha=0.15, linewidth=0
        )
    axis.set_xlabel("block (the last is read after the final norm)")
    axis.set_ylabel("cosine, CoT on and off")
    axis.legend(frameon=False, loc="upper right")
    axis.grid(color="#eceef1")
    figure.tight_layout()
    return figure


COINS = ("random_labels", "on", "fair coins for p′", PLUM)


def search_curves() -> Any:
    """Draw the cost of the best suffix after each round of a search, a panel per system, a line per attack."""
    curves = json.loads((STUDIES.parent / "search_curves.json").read_text(encoding="utf-8"))["curves"]
    systems = list(dict.fromkeys(curve["system"] for curve in curves))
    figure, axes = plt.subplots(1, len(systems), figsize=(9.6, 3.4), squeeze=False)
    colors = {"gcg": BLUE, "adaptive": RED}
    for axis, system in zip(axes[0], systems, strict=True):
        for curve in (curve for curve in curves if curve["system"] == system):
            costs, name = curve["costs"], curve["attack"].partition(":")[0]
            axis.plot(range(1, len(costs) + 1), costs, color=colors[name], label=name)
            axis.text(len(costs), costs[-1], f" {costs[-1]:.2f}", fontsize=9, color="#24282e", va="center")
        axis.set_title(system, fontsize=11, loc="left", color="#24282e")
        axis.set_xlabel("round")
        axis.set_ylabel("cost of the best suffix (nats)")
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", color="#eceef1")
        axis.legend(frameon=False, fontsize=10)
    figure.tight_layout()
    return figure


FIGURES: dict[str, Callable[[], Any]] = {
    "gap": published("shipped", [VANILLA_ON, VANILLA_OFF, SFT, PRESAFE]),
    "gap-before": published("shipped", [VANILLA_ON, VANILLA_OFF]),
    "shipped": published("shipped", [VANILLA_ON, SFT, PRESAFE, COINS]),
    "cot-off": published(
        "shipped",
        [
            VANILLA_OFF,
            ("sft", "off", "SFT only, CoT off", GOLD),
            ("presafe", "off", "PreSafe + L_start, CoT off", TEAL),
            ("random_labels", "off", "fair coins for p′, CoT off", PLUM),
        ],
    ),
    "every-row": published("every_row", [VANILLA_ON, VANILLA_OFF, SFT, PRESAFE]),
    "control": published(
        "control",
        [
            SFT,
            PRESAFE,
            COINS,
            ("shuffled_labels", "on", "other queries' p′", RED),
            ("detached_head", "on", "detached head", GREY),
        ],
    ),
    "thought": published(
        "thought",
        [
            ("sft-thought", "on", "SFT only, thought", GOLD),
            ("presafe_thought", "on", "PreSafe + L_start, thought", TEAL),
            ("random_labels-thought", "on", "fair coins, thought", PLUM),
            ("sft", "on", "SFT only, direct", "#eed9ad"),
            ("presafe", "on", "PreSafe + L_start, direct", "#8fc3bf"),
        ],
    ),
    "thinking-on-only": published("thinking_on_only", [VANILLA_ON, SFT, PRESAFE, COINS]),
    "more-steps": published(
        "ablations",
        [
            ("sft", "on", "SFT only, 40 steps", "#eed9ad"),
            ("sft-steps_80", "on", "SFT only, 80 steps", GOLD),
            ("presafe", "on", "PreSafe + L_start, 40 steps", "#8fc3bf"),
            ("steps_80", "on", "PreSafe + L_start, 80 steps", TEAL),
        ],
    ),
    "head": published(
        "methods",
        [
            SFT,
            ("presafe_head", "on", "paper's head alone", BLUE),
            ("presafe_start", "on", "L_start alone", PLUM),
            PRESAFE,
        ],
    ),
    "demo-full": demo_full,
    "operating-points": trade,
    "inside": cosines,
    "search-curves": search_curves,
}


def draw(name: str, folder: Path) -> Path:
    """Draw one figure into a folder, and return its path."""
    with mpl.rc_context(SETTINGS):
        figure = FIGURES[name]()
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, facecolor="white")
        plt.close(figure)
    return folder / f"{name}.svg"


def main() -> int:
    """Draw every figure again."""
    ASSETS.mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        print(f"drew {draw(name, ASSETS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
