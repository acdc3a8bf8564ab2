"""Numbers as people read them."""

from __future__ import annotations

import pytest
from report_cases import make_score

from presafe.report.formatting import format_duration, format_estimate, format_percent


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 %"), (0.004, "0.4 %"), (0.0004, "0 %"), (0.083, "8 %"), (0.996, "99.6 %"), (1.0, "100 %")],
)
def test_percent_never_rounds_a_few_to_none(value: float, text: str) -> None:
    assert format_percent(value) == text


def test_estimates_and_durations() -> None:
    assert format_estimate(make_score("a", "on", "s", "refusal_rate", 0.95, low=0.91, high=0.97)) == "95.0 % [91, 97]"
    assert format_estimate(make_score("a", "on", "s", "refusal_rate", 0.0, low=-1e-18, high=0.03)) == "0.0 % [0, 3]"
    assert format_estimate(make_score("a", "on", "s", "head_auroc", 0.948, low=0.93, high=0.96)) == "0.948 [0.93, 0.96]"
    assert format_estimate(make_score("a", "on", "s", "refusal_rate", None)) == "–"
    assert format_estimate(None) == "–"
    assert [format_duration(s) for s in (4.25, 185, 3725)] == ["4.2 s", "3 min 05 s", "1 h 02 min"]
