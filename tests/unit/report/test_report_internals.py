"""What is inside, and where refusals happen, as tables and figures."""

from __future__ import annotations

import csv
from pathlib import Path

from report_cases import page_of

from presafe.records import DirectionCosine, InsideView, ProbeScore, RefusalPlaces, StatePoint
from presafe.report.data import ReportData
from presafe.report.internals import (
    directions_figure,
    first_seeds,
    layer_lines,
    place_lines,
    plane_figure,
    probes_figure,
)
from presafe.report.page import write_report


def view(system: str, seed: int | None, level: float) -> InsideView:
    return InsideView(
        system=system,
        seed=seed,
        num_fit=40,
        probes=tuple(
            ProbeScore(
                thinking=mode,
                layer=layer,
                suite="smolthink_benign",
                value=level + layer / 100,
                low=level - 0.05,
                high=level + 0.05,
                n=150,
            )
            for layer in (1, 2)
            for mode in ("on", "off")
        ),
        cosines=tuple(DirectionCosine(layer=layer, value=0.3 * layer, low=0.1, high=0.7, n=150) for layer in (1, 2)),
        layer=2,
        shares=(0.4, 0.2),
        points=(StatePoint(suite="smolthink_harmful", x=1, y=2), StatePoint(suite="smolthink_benign", x=-1, y=0)),
    )


VIEWS = (view("presafe", 0, 0.9), view("presafe", 1, 0.5), view("vanilla", None, 0.8))
PLACES = (
    RefusalPlaces(
        system="presafe",
        suite="smolthink_harmful",
        expect="refuse",
        counts={"before": 5, "thought": 1, "answer": 2, "nowhere": 2, "unjudged": 3},
    ),
    RefusalPlaces(
        system="vanilla",
        suite="smolthink_harmful",
        expect="refuse",
        counts={"before": 0, "thought": 0, "answer": 0, "nowhere": 0, "unjudged": 4},
    ),
)


def test_first_seed_of_each_system_is_shown() -> None:
    assert [(view.system, view.seed) for view in first_seeds(VIEWS)] == [("vanilla", None), ("presafe", 0)]


def test_layer_table_has_a_line_per_system_and_mode() -> None:
    assert layer_lines(VIEWS) == [
        ("vanilla", "on", 2, ("0.820 [0.75, 0.85]",), "0.600 [0.10, 0.70]"),
        ("vanilla", "off", 2, ("0.820 [0.75, 0.85]",), ""),
        ("presafe", "on", 2, ("0.920 [0.85, 0.95]",), "0.600 [0.10, 0.70]"),
        ("presafe", "off", 2, ("0.920 [0.85, 0.95]",), ""),
    ]


def test_places_are_shares_of_judged_answers() -> None:
    presafe, vanilla = place_lines(PLACES)
    # 5, 1, 2 and 2 of 10; Wilson's interval of 5 of 10 is [0.237, 0.763]
    assert presafe.cells[0] == "50.0 % [24, 76]"
    assert [cell.split(" %")[0] for cell in presafe.cells] == ["50.0", "10.0", "20.0", "20.0"]
    assert (presafe.n, presafe.num_unjudged) == (10, 3)
    assert vanilla.cells == ("–",) * 4


def test_figures_need_views() -> None:
    for draw in (probes_figure, directions_figure, plane_figure):
        assert draw([]) is None
        text = draw(VIEWS)
        assert text is not None
        assert text == draw(VIEWS)  # no date, no random ids
        assert "<svg" in text


def test_page_shows_internals_and_places(data: ReportData) -> None:
    plain = page_of(data)
    assert 'id="inside"' not in plain
    assert 'id="places"' not in plain
    page = page_of(data.model_copy(update={"inside": VIEWS, "places": PLACES}))
    assert "fitted, layer by layer, on 40 of the" in " ".join(page.split())
    assert "0.920 [0.85, 0.95]" in page
    assert "50.0 % [24, 76]" in page
    assert "3 without an answer" in page
    assert page.count("data:image/svg+xml") == plain.count("data:image/svg+xml") + 3


def test_figures_of_a_look_inside_have_their_data(data: ReportData, tmp_path: Path) -> None:
    views = (view("vanilla", None, 0.5), view("presafe", 0, 0.9))
    write_report(data.model_copy(update={"inside": views}), tmp_path)
    drawn = {path.stem for path in (tmp_path / "figures").iterdir()}
    # the figures of rates and of a sweep are drawn from scores
    of_scores = {"gap", "systems", "pareto", "sweep"}
    assert drawn - of_scores <= {path.stem for path in (tmp_path / "data").iterdir()}
    assert {"probes", "directions", "plane"} <= drawn
    # per view: two layers in two modes, two layers, and two points
    for name, count in (("probes", 8), ("directions", 4), ("plane", 4)):
        with (tmp_path / "data" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        assert len(lines) == count
        assert {line["system"] for line in lines} == {"vanilla", "presafe"}
    assert [(line["x"], line["y"]) for line in lines[:2]] == [("1.0", "2.0"), ("-1.0", "0.0")]
