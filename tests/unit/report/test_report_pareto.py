"""The Pareto front: its points, and the line through them."""

from __future__ import annotations

import re

from report_cases import make_score, texts_of

from presafe.records import Score
from presafe.report.pareto import pareto_figure, pareto_front


def test_front_holds_unbeaten_points() -> None:
    # (1, 1) is beaten by (1, 2); (0, 3) and (2, 0) are best in one; equals stay together
    assert pareto_front([(1, 1), (1, 2), (0, 3), (2, 0), (2, 0)]) == [1, 2, 3, 4]


def test_front_never_passes_a_better_corner() -> None:
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


def test_front_needs_two_systems(scores: tuple[Score, ...]) -> None:
    assert pareto_figure([score for score in scores if score.system == "presafe"]) is None
    assert {"Vanilla", "PreSafe + L_start (ours)"} <= texts_of(pareto_figure(scores))
    sft = make_score("sft", "on", "smolthink_benign", "over_refusal_rate", 0.02)
    classifier = make_score("classifier", "off", "classifier_held_out", "classifier_accuracy", 0.9)
    texts = texts_of(pareto_figure((*scores, sft, classifier)))
    assert {"Benign, held out: wrongly refused", "PreSafe + L_start (ours)"} <= texts
    assert "classifier" not in texts  # only what has a point
