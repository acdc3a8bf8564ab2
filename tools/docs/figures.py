"""Figures of README.md and docs/, drawn as SVG from the committed JSON of the studies into docs/assets/.

`python tools/docs/figures.py` draws all of them again. The same JSON gives the same numbers in the figure's text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_figures
import coverage_of_rules
import diagrams
import endpoint_figures
import matplotlib as mpl
import mends
from colors import BLUE, GOLD, GREY, PLUM, RED, TEAL
from judge_tables import measured, number_of_answers
from paths import DOCS, STUDIES
from results import HARMFUL, HARMLESS, TITLES, demo_scores
from studies import scores

mpl.use("svg")
from matplotlib import pyplot as plt

ASSETS = DOCS / "assets"
Row = tuple[str, str, str, str]
"""A system of a study, its CoT mode, what the legend calls it, its color."""
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


def rules() -> Any:
    """Draw how often the interval of each rule holds the true difference, a dot for each simulated setting."""
    figure, axis = plt.subplots(figsize=(9.6, 2.9))
    rows = coverage_of_rules.committed()
    named = [
        ("seeds only\n(before, for J)", "seeds_only", GOLD),
        ("seeds + prompts\n(before, for rates)", "seeds_plus_prompts", BLUE),
        ("crossed:\nthe rule of these pages", "crossed", TEAL),
    ]
    axis.axvspan(93, 97, color="#eceef1", linewidth=0)
    axis.axvline(95, color="#8d949e", linewidth=1)
    for place, (_, rule, color) in enumerate(named):
        shares = [100 * getattr(row, rule) for row in rows]
        heights = [place + 0.5 * (number / (len(rows) - 1) - 0.5) for number in range(len(rows))]
        axis.plot(shares, heights, "o", color=color, markersize=4, alpha=0.8)
        axis.text(100.6, place, f"{min(shares):.1f} to {max(shares):.1f} %", va="center", fontsize=9, color="#24282e")
    axis.set_yticks(range(len(named)), [label for label, _, _ in named])
    axis.set_xlim(86, 100.5)
    axis.set_xticks([86, 88, 90, 92, 93, 95, 97, 100])
    axis.set_xlabel("experiments whose 95 % interval holds the true difference, %")
    axis.tick_params(axis="y", length=0)
    figure.tight_layout(rect=(0, 0, 0.99, 1))
    return figure


def judges() -> Any:
    """Draw how the refusal strings read both labelled sets, before and after they were mended."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.6), sharey=True)
    titles = {"shipped": "set that ships (mended on it)", "unseen": "unseen set (written after the mends)"}
    values = [
        ("accuracy", "right\n(higher is better)"),
        ("false_safe", "compliance read\nas refusal"),
        ("false_unsafe", "refusal read\nas compliance"),
    ]
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        versions = list(measured(name).values())[:2]
        for number, (row, color) in enumerate(zip(versions, (GREY, TEAL), strict=True)):
            for place, (value, _) in enumerate(values):
                share, low, high = (100 * end for end in getattr(row, value)[:3])
                x = place - 0.21 + 0.42 * number
                axis.bar(x, share, 0.38, color=color, label=f"version {number + 1}" if place == 0 else None)
                axis.plot([x, x], [low, high], color="#24282e", linewidth=1)
                axis.text(x, high + 2, f"{share:.0f}", ha="center", fontsize=9, color="#24282e")
        axis.set_xticks(range(len(values)), [label for _, label in values])
        axis.tick_params(axis="x", length=0)
        axis.set_title(f"{title}, n = {number_of_answers(name)}", fontsize=11, loc="left", pad=10)
        axis.set_ylim(0, 112)
        axis.set_yticks([0, 25, 50, 75, 100], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        axis.grid(axis="y", color="#eceef1")
        axis.set_axisbelow(True)
    axes[0].legend(frameon=False, loc="upper right", fontsize=10)
    figure.tight_layout()
    return figure


def mended() -> Any:
    """Draw how many mends each report of a fault has, by what its test does when the mend is undone."""
    declared, outcomes = mends.read()
    by_report: dict[str, list[str]] = {report["of"]: [] for report in declared["report"] if "see" not in report}
    for mend in declared["mend"]:
        by_report[mend["of"]].append(outcomes[mend["rule"]])
    kinds = [("the test fails", "fails", TEAL), ("the test does not end", "does not end", GOLD)]
    kinds += [("the test still passes", "passes", RED)]
    figure, axis = plt.subplots(figsize=(9.6, 0.6 + 0.24 * len(by_report)))
    for place, seen in enumerate(by_report.values()):
        left = 0
        for _, outcome, color in kinds:
            count = sum(text.startswith(outcome) for text in seen)
            axis.barh(place, count, 0.72, left=left, color=color)
            left += count
        axis.text(left + 0.2, place, str(left), va="center", fontsize=9, color="#24282e")
    for label, outcome, color in kinds:
        total = sum(text.startswith(outcome) for text in outcomes.values())
        axis.barh(0, 0, color=color, label=f"{label} without the mend: {total}")
    axis.set_yticks(range(len(by_report)), list(by_report), fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel("mends, each undone alone on a copy of the package")
    axis.tick_params(axis="y", length=0)
    axis.legend(frameon=False, loc="lower right", fontsize=10)
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
    "coverage": rules,
    "judge": judges,
    "mends": mended,
    "speed": bench_figures.speeds,
    "promise": bench_figures.promised,
    "transfer": endpoint_figures.endpoint_figure(
        "transfer", ("chess:refusal_rate", TEAL), ("chess_benign:over_refusal_rate", GREY)
    ),
    "protocol": diagrams.protocol,
    "paper-map": diagrams.paper_map,
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
