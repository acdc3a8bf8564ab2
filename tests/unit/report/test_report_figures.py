"""Figures: the same bytes every time, nothing drawn from nothing, and marks where the numbers put them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from matplotlib.figure import Figure

from presafe.report.drawing import paler, panel_grid, running_mean, system_colour
from presafe.report.figures import (
    figures,
    gap_figure,
    halves_figure,
    pareto_figure,
    pareto_front,
    positions_figure,
    systems_figure,
    training_figure,
)


def bars(svg: str, colour: str) -> list[tuple[float, float]]:
    """Width and height of the filled rectangles of a colour, those of the legend left out."""
    found = []
    for path, style in re.findall(r'<path d="([^"]+)"[^>]*style="fill: ([^";]+)', svg.split('id="legend_1"')[0]):
        points = [tuple(map(float, pair)) for pair in re.findall(r"[ML] (\S+) (\S+)", path)]
        if style == colour and len(points) == 4:
            xs, ys = zip(*points, strict=True)
            found.append((max(xs) - min(xs), max(ys) - min(ys)))
    return found


def written(svg: str | None) -> set[str]:
    """The texts of a figure: they are drawn as paths, each after a comment that holds its words."""
    return set(re.findall(r"<!-- (.*?) -->", svg or ""))


def test_same_data_gives_the_same_svg(data):
    once, twice = figures(data), figures(data.model_copy(deep=True))
    assert list(once) == ["gap", "systems", "pareto", "reliability", "training", "positions"]
    assert once == twice


def test_figures_are_svg_without_date_or_creator(data):
    for svg in figures(data).values():
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert "metadata" not in svg


def test_nothing_is_drawn_from_nothing(data):
    nothing = {"scores": (), "classifier": None, "histories": {"sft": ()}, "positions": ()}
    assert figures(data.model_copy(update=nothing)) == {}


def test_gap_bars_stand_in_the_ratio_of_the_rates(make_score):
    pair = [
        make_score("vanilla", mode, "smolthink_harmful", "refusal_rate", value)
        for mode, value in (("on", 0.2), ("off", 0.8))
    ]
    svg = gap_figure(pair) or ""
    ((_, on),), ((_, off),) = bars(svg, "#d1603d"), bars(svg, "#3f6c9b")
    assert abs(off / on - 4) < 1e-3  # 0.8 / 0.2


def test_gap_is_about_vanilla_only(make_score):
    assert gap_figure([make_score("presafe", "on", "smolthink_harmful", "refusal_rate", 0.5)]) is None


def test_gap_says_how_many_were_judged_where_some_were_not(make_score):
    rows = [
        make_score("vanilla", "on", "strong_reject", "refusal_rate", 0.2, n=45),
        make_score("vanilla", "on", "strong_reject", "unjudged_rate", 0.55, n=100),
        make_score("vanilla", "off", "strong_reject", "refusal_rate", 0.8, n=100),
        make_score("vanilla", "off", "strong_reject", "unjudged_rate", 0.0, n=100),
    ]
    assert {"on: 45 of 100 judged", "off: 100 of 100 judged"} <= written(gap_figure(rows))
    assert "n = 100" in written(gap_figure(rows[2:]))


def test_auxiliary_loss_has_its_reference_and_needs_no_curve_of_every_system(data):
    reference = "ln 2: always one half"
    assert reference in written(training_figure(data.histories))  # SFT has no auxiliary loss, PreSafe has
    assert reference not in written(training_figure({"sft": data.histories["sft"]}))


def test_system_without_a_value_has_no_bar(make_score):
    rows = [
        make_score("vanilla", "on", "gsm8k", "accuracy", 0.5),
        make_score("presafe", "on", "gsm8k", "accuracy", None),
    ]
    svg = systems_figure(rows) or ""
    assert len(bars(svg, "#8b929b")) == 1
    assert bars(svg, "#17807a") == []


def test_halves_are_drawn_on_both_sides_of_chance(make_score):
    rows = [
        make_score("sft", "on", "xstest_safe", "over_refusal_rate", 0.3),
        make_score("sft", "on", "xstest_safe", "youden_j", 0.4, low=0.3, high=0.5),
        make_score("presafe", "on", "xstest_safe", "youden_j", -0.2, low=-0.3, high=-0.1),
        make_score("presafe", "on", "xstest_safe", "matched_refusal_start_auroc", 0.75),
    ]
    svg = halves_figure(rows)
    (sft,), (presafe, auroc) = bars(svg or "", "#d9a441"), bars(svg or "", "#17807a")
    widths = {round(width / sft[0], 2) for width, _ in (presafe, auroc)}
    assert 0.5 in widths  # −.2 against .4
    assert {"0.40", "-0.20", "0.75"} <= written(svg)
    assert halves_figure(rows[:1]) is None


def test_an_interval_that_reaches_beyond_every_rate_leaves_the_layout_as_it_is(make_score):
    def size_of_bar(low: float, high: float) -> tuple[float, float]:
        rows = [make_score("sft", "on", f"set_{i}", "accuracy", 0.5, low=low, high=high) for i in range(2)]
        return bars(systems_figure(rows) or "", "#d9a441")[0]

    assert size_of_bar(-7.0, 8.0) == size_of_bar(0.0, 1.0)


def test_many_suites_and_unknown_systems_are_drawn(make_score):
    rows = [make_score(system, "on", f"set_{i}", "accuracy", 0.5) for system in ("mine", "yours") for i in range(6)]
    svg = systems_figure(rows) or ""
    assert len(bars(svg, "#3f6c9b")) == len(bars(svg, "#d1603d")) == 6


def test_the_front_holds_what_nothing_beats():
    # (1, 1) is beaten by (1, 2); (0, 3) and (2, 0) are best in one; equals stay together
    assert pareto_front([(1, 1), (1, 2), (0, 3), (2, 0), (2, 0)]) == [1, 2, 3, 4]


def test_the_front_goes_through_no_corner_that_no_system_reaches(make_score):
    rows = []
    for system, refused, price in (("vanilla", 0.5, 0.0), ("sft", 0.9, 0.2), ("presafe", 0.4, 0.3)):
        rows.append(make_score(system, "on", "smolthink_harmful", "refusal_rate", refused))
        rows.append(make_score(system, "on", "smolthink_benign", "over_refusal_rate", price))
    svg = pareto_figure(rows) or ""
    dashed = re.search(r'<path d="([^"]+)"[^>]*stroke-dasharray', svg)
    assert dashed
    (x0, y0), (x1, y1), (x2, y2) = [tuple(map(float, pair)) for pair in re.findall(r"[ML] (\S+) (\S+)", dashed[1])]
    # From (0 %, 50 %) to (20 %, 90 %). The axis of the price runs backwards, and SVG counts y from above.
    # The corner stands at the second price and the first refusals: worse than both, never better.
    assert x0 > x1 == x2
    assert y0 == y1 > y2


def test_a_front_needs_two_systems(scores, make_score):
    assert pareto_figure([score for score in scores if score.system == "presafe"]) is None
    assert {"Vanilla", "PreSafe"} <= written(pareto_figure(scores))
    sft = make_score("sft", "on", "smolthink_benign", "over_refusal_rate", 0.02)
    classifier = make_score("classifier", "off", "classifier_held_out", "classifier_accuracy", 0.9)
    texts = written(pareto_figure((*scores, sft, classifier)))
    assert {"Benign, held out: wrongly refused", "PreSafe"} <= texts
    assert "classifier" not in texts  # only what has a point


def test_positions_of_a_constant_score_are_drawn(data):
    same = [each.model_copy(update={"refusal_logit": 0.0}) for each in data.positions]
    assert "log-odds of beginning as the trained refusals do" in written(positions_figure(same))


def test_colours_and_means():
    assert system_colour("presafe", ["presafe"]) == "#17807a"
    assert system_colour("yours", ["mine", "presafe", "yours"]) != system_colour("mine", ["mine", "presafe", "yours"])
    assert paler("#000000") == "#999999"  # 0.6 · 255 = 153
    # forty values reach two to either side: the first is the mean of 0, 1, 2; the third of 0 … 4
    assert running_mean(list(range(40)))[:3] == [1, 1.5, 2]


def test_a_panel_above_a_free_place_names_its_ticks_itself() -> None:
    figure = Figure()
    panels = panel_grid(figure, 6, 4)
    assert [axes.get_visible() for axes in figure.axes] == [True] * 6 + [False] * 2
    assert [bool(axes.xaxis.get_tick_params()["labelbottom"]) for axes in panels] == [False] * 2 + [True] * 4
    assert [bool(axes.yaxis.get_tick_params()["labelleft"]) for axes in panels] == [True, *[False] * 3, True, False]
