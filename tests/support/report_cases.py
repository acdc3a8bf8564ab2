"""Rows and pages for tests of the report."""

from __future__ import annotations

import re

from presafe.records import Difference, Score, Thinking
from presafe.report.data import ReportData
from presafe.report.drawing import Drawn
from presafe.report.figures import figures
from presafe.report.page import render_page


def make_score(
    system: str,
    thinking: Thinking,
    suite: str,
    metric: str,
    value: float | None,
    *,
    low: float | None = None,
    high: float | None = None,
    n: int = 120,
    seed: int | None = 0,
    samples: int = 1,
) -> Score:
    """Return a row; what is left out does not matter to the test."""
    return Score(
        system=system,
        thinking=thinking,
        suite=suite,
        metric=metric,
        value=value,
        low=low,
        high=high,
        n=n,
        seed=seed,
        judge="refusal_strings",
        samples=samples,
    )


def make_difference(
    against: str,
    against_thinking: Thinking,
    value_against: float,
    value: float,
    *,
    suite: str = "smolthink_harmful",
    metric: str = "refusal_rate",
    half_width: float = 0.08,
    p: float = 0.04,
) -> Difference:
    """Return the difference of PreSafe with CoT on from another system."""
    return Difference(
        system="presafe",
        thinking="on",
        against=against,
        against_thinking=against_thinking,
        suite=suite,
        metric=metric,
        value=value,
        value_against=value_against,
        difference=value - value_against,
        low=value - value_against - half_width,
        high=value - value_against + half_width,
        p=p / 2,
        p_holm=p,
        n=118,
        num_left_out=2,
        num_seeds=1,
        detectable=0.114,
    )


_figures: dict[str, dict[str, Drawn]] = {}


def page_of(data: ReportData) -> str:
    """Return the page with its figures, which are drawn once for equal values: that takes over a second."""
    drawn = repr((data.scores, data.classifier, data.histories, data.positions, data.inside, data.sweep))
    if drawn not in _figures:
        _figures[drawn] = figures(data)
    return render_page(data, _figures[drawn])


def texts_of(svg: str | None) -> set[str]:
    """Return the texts of a figure: they are drawn as paths, each after a comment with its words."""
    return set(re.findall(r"<!-- (.*?) -->", svg or ""))
