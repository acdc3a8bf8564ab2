"""Figures: the same bytes every time, nothing drawn from nothing, and marks where the numbers put them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from matplotlib.figure import Figure
from report_cases import make_score, texts_of

from presafe.records import Thinking
from presafe.report.data import ReportData
from presafe.report.drawing import pale_color, panel_grid, running_mean, system_color
from presafe.report.figures import (
    figures,
    gap_figure,
    halves_figure,
    positions_figure,
    systems_figure,
    training_figure,
)


def bar_sizes(svg: str, color: str) -> list[tuple[float, float]]:
    """Return width and height of the filled rectangles of a color, without those of the legend."""
    sizes = []
    for path, style in re.findall(r'<path d="([^"]+)"[^>]*style="fill: ([^";]+)', svg.split('id="legend_1"')[0]):
        points = [tuple(map(float, pair)) for pair in re.findall(r"[ML] (\S+) (\S+)", path)]
        if style == color and len(points) == 4:
            xs, ys = zip(*points, strict=True)
            sizes.append((max(xs) - min(xs), max(ys) - min(ys)))
    return sizes


def test_same_data_give_the_same_svg(data: ReportData) -> None:
    once, twice = figures(data), figures(data.model_copy(deep=True))
    assert list(once) == ["gap", "systems", "pareto", "reliability", "training", "positions"]
    assert once == twice


def test_figures_are_svg_without_date_or_creator(data: ReportData) -> None:
    for svg in figures(data).values():
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert "metadata" not in svg


def test_no_data_give_no_figures(data: ReportData) -> None:
    nothing = {"scores": (), "classifier": None, "histories": {"sft": ()}, "positions": ()}
    assert figures(data.model_copy(update=nothing)) == {}


def test_gap_bars_have_the_ratio_of_the_rates() -> None:
    rates: dict[Thinking, float] = {"on": 0.2, "off": 0.8}
    pair = [make_score("vanilla", mode, "smolthink_harmful", "refusal_rate", value) for mode, value in rates.items()]
    svg = gap_figure(pair) or ""
    ((_, on),), ((_, off),) = bar_sizes(svg, "#d1603d"), bar_sizes(svg, "#3f6c9b")
    assert abs(off / on - 4) < 1e-3  # 0.8 / 0.2


def test_gap_shows_only_vanilla() -> None:
    assert gap_figure([make_score("presafe", "on", "smolthink_harmful", "refusal_rate", 0.5)]) is None


def test_gap_says_how_many_were_judged() -> None:
    rows = [
        make_score("vanilla", "on", "strong_reject", "refusal_rate", 0.2, n=45),
        make_score("vanilla", "on", "strong_reject", "unjudged_rate", 0.55, n=100),
        make_score("vanilla", "off", "strong_reject", "refusal_rate", 0.8, n=100),
        make_score("vanilla", "off", "strong_reject", "unjudged_rate", 0.0, n=100),
    ]
    assert {"on: 45 of 100 judged", "off: 100 of 100 judged"} <= texts_of(gap_figure(rows))
    assert "n = 100" in texts_of(gap_figure(rows[2:]))


def test_auxiliary_loss_has_its_reference_line(data: ReportData) -> None:
    reference = "ln 2: always one half"
    assert reference in texts_of(training_figure(data.histories))  # SFT has no auxiliary loss, PreSafe has
    assert reference not in texts_of(training_figure({"sft": data.histories["sft"]}))


def test_system_without_a_value_has_no_bar() -> None:
    rows = [
        make_score("vanilla", "on", "gsm8k", "accuracy", 0.5),
        make_score("presafe", "on", "gsm8k", "accuracy", None),
    ]
    svg = systems_figure(rows) or ""
    assert len(bar_sizes(svg, "#8b929b")) == 1
    assert bar_sizes(svg, "#17807a") == []


def test_halves_reach_both_sides_of_chance() -> None:
    rows = [
        make_score("sft", "on", "xstest_safe", "over_refusal_rate", 0.3),
        make_score("sft", "on", "xstest_safe", "youden_j", 0.4, low=0.3, high=0.5),
        make_score("presafe", "on", "xstest_safe", "youden_j", -0.2, low=-0.3, high=-0.1),
        make_score("presafe", "on", "xstest_safe", "matched_refusal_start_auroc", 0.75),
    ]
    svg = halves_figure(rows)
    (sft,), (presafe, auroc) = bar_sizes(svg or "", "#d9a441"), bar_sizes(svg or "", "#17807a")
    widths = {round(width / sft[0], 2) for width, _ in (presafe, auroc)}
    assert 0.5 in widths  # −.2 against .4
    assert {"0.40", "-0.20", "0.75"} <= texts_of(svg)
    assert halves_figure(rows[:1]) is None


def test_interval_outside_0_to_1_keeps_the_layout() -> None:
    def size_of_bar(low: float, high: float) -> tuple[float, float]:
        rows = [make_score("sft", "on", f"set_{i}", "accuracy", 0.5, low=low, high=high) for i in range(2)]
        return bar_sizes(systems_figure(rows) or "", "#d9a441")[0]

    assert size_of_bar(-7.0, 8.0) == size_of_bar(0.0, 1.0)


def test_many_suites_and_unknown_systems_are_drawn() -> None:
    rows = [make_score(system, "on", f"set_{i}", "accuracy", 0.5) for system in ("mine", "yours") for i in range(6)]
    svg = systems_figure(rows) or ""
    assert len(bar_sizes(svg, "#3f6c9b")) == len(bar_sizes(svg, "#d1603d")) == 6


def test_positions_of_a_constant_score_are_drawn(data: ReportData) -> None:
    same = [position.model_copy(update={"refusal_logit": 0.0}) for position in data.positions]
    assert "log-odds of beginning as the trained refusals do" in texts_of(positions_figure(same))


def test_colors_and_means() -> None:
    assert system_color("presafe", ["presafe"]) == "#17807a"
    assert system_color("yours", ["mine", "presafe", "yours"]) != system_color("mine", ["mine", "presafe", "yours"])
    assert pale_color("#000000") == "#999999"  # 0.6 · 255 = 153
    # forty values reach two to either side: the first is the mean of 0, 1, 2; the third of 0 … 4
    assert running_mean(list(range(40)))[:3] == [1, 1.5, 2]


def test_panel_above_an_empty_cell_has_tick_labels() -> None:
    figure = Figure()
    panels = panel_grid(figure, 6, 4)
    assert [axes.get_visible() for axes in figure.axes] == [True] * 6 + [False] * 2
    assert [bool(axes.xaxis.get_tick_params()["labelbottom"]) for axes in panels] == [False] * 2 + [True] * 4
    assert [bool(axes.yaxis.get_tick_params()["labelleft"]) for axes in panels] == [True, *[False] * 3, True, False]
