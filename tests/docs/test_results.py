"""Numbers in README.md and docs/ equal the committed results of the studies."""

from __future__ import annotations

import re
from pathlib import Path

import figures
import pytest
import results
from paths import DOCS, ROOT, STUDIES, pages

PAGES = [page for page in pages() if results.marked_tables(page.read_text(encoding="utf-8"))]
_QUOTED = re.compile(r"(?<![\d.])([+-]\d*\.?\d+) \[([+-]\d*\.?\d+), ([+-]\d*\.?\d+)\]")
"""A difference as a text quotes it: "+24 [+12, +35]" in points, "+.17 [+.06, +.29]" as it is."""


def test_many_pages_have_tables_from_the_results() -> None:
    # README, the walk-through of the demo, and of Research: the short results, shipped, CoT off, operating points,
    # without rows with CoT off, control, thought, methods, ablations, head and speed
    assert len(PAGES) == 13


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_tables_are_the_committed_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == results.filled(text), "write the tables again with `python tools/docs/results.py`"


def test_a_changed_number_in_a_table_is_found() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    changed = text.replace("| 92 [89, 94] |", "| 93 [89, 94] |")
    assert changed != text
    assert results.filled(changed) == text


def test_numbers_are_written_as_the_tables_write_them() -> None:
    # an interval is cut at 0 and 100; a rounded zero has no minus
    assert results.percent({"value": 0.886, "low": 0.73, "high": 1.04}) == "89 [73, 100]"
    assert results.points({"difference": -0.001, "low": -0.12, "high": 0.35}) == "+0 [-12, +35]"
    assert results.signless_zero("-0.00") == "0.00"
    assert results.probability(0.0439) == ".044"
    assert results.probability(1.0) == "1"


def differences(studies: list[str]) -> list[tuple[float, float, float]]:
    """Every difference of some studies with its interval, as a fraction."""
    rows = [row for name in studies for key in ("differences", "seed_differences") for row in results.study(name)[key]]
    return [(row["difference"], row["low"], row["high"]) for row in rows if row["low"] is not None]


def quoted_differences(text: str) -> list[tuple[str, str, str]]:
    """Every difference that a page quotes outside the tables that are written from the results."""
    prose = re.sub(r"<!-- table:.*?<!-- /table -->", "", text, flags=re.DOTALL)
    return _QUOTED.findall(" ".join(prose.split()))


def is_committed(quote: tuple[str, str, str], known: list[tuple[float, float, float]]) -> bool:
    """Whether a quoted difference is one of the committed ones, rounded as it is quoted; in points or as a fraction."""
    digits = [len(number.partition(".")[2]) for number in quote]
    for scale in (1, 100):
        if scale == 100 and any(number[1] == "." for number in quote):
            continue  # ".17" is no number of points
        for row in known:
            rounded = [round(scale * value, places) for value, places in zip(row, digits, strict=True)]
            if rounded == [float(number) for number in quote]:
                return True
    return False


def test_rounding_of_quotes() -> None:
    known = [(0.236, 0.1183, 0.3537), (-0.0025, -0.163, 0.158)]
    assert is_committed(("+24", "+12", "+35"), known)
    assert is_committed(("+23.6", "+11.8", "+35.4"), known)
    assert is_committed(("+.236", "+.118", "+.354"), known)
    assert is_committed(("-.00", "-.16", "+.16"), known)
    assert not is_committed(("+25", "+12", "+35"), known)
    assert not is_committed(("+.24", "+.12", "+.36"), known)


QUOTES: dict[str, list[str]] = {
    "README.md": ["shipped"],
    "docs/research/index.md": ["shipped", "rate_5", "every_row", "control", "thought", "better_baseline"],
    "docs/research/shipped.md": ["shipped", "thinking_on_only"],
    "docs/research/every-row.md": ["every_row"],
    "docs/research/control.md": ["control"],
    "docs/research/thought.md": ["thought", "better_baseline", "control"],
    "docs/research/methods.md": ["methods"],
    "docs/research/ablations.md": ["more_steps", "methods", "ablations"],
    "docs/research/thinking-on-only.md": ["thinking_on_only"],
    "docs/research/operating-points.md": ["rate_5", "operating_points", "shipped"],
    "docs/research/head.md": ["head"],
}
"""Pages, and the studies that their quoted differences are from."""
OTHER_PAIRS: dict[str, set[str]] = {
    "docs/research/index.md": {"+12 [-5, +29]"},
    "docs/research/shipped.md": {"-.05 [-.25, +.15]", "+.025 [-.01, +.06]", "+6 [-12, +23]", "+11 [-7, +28]"},
    "docs/research/every-row.md": {"+14 [+0, +29]"},
    "docs/research/control.md": {"-22 [-51, +6]"},
    "docs/research/thought.md": {"-4 [-10, +2]"},
    "docs/research/ablations.md": {"+.16 [+.03, +.29]"},
    "docs/research/operating-points.md": {
        *("+42 [+25, +58]", "+29 [+7, +52]", "+26 [+10, +42]", "+12 [-2, +26]", "+3 [-4, +10]", "+4 [-7, +16]"),
        *("+.18 [+.08, +.28]", "+.23 [+.14, +.33]"),
    },
}
"""Differences of pairs that no study's JSON holds: two recipes, two numbers of steps, fewer runs, the demo."""


@pytest.mark.parametrize("page", QUOTES)
def test_quoted_differences_are_committed(page: str) -> None:
    quotes = quoted_differences((ROOT / page).read_text(encoding="utf-8"))
    known = differences(QUOTES[page])
    unknown = {f"{value} [{low}, {high}]" for value, low, high in quotes if not is_committed((value, low, high), known)}
    assert quotes
    assert unknown == OTHER_PAIRS.get(page, set())


@pytest.mark.parametrize("name", figures.FIGURES)
def test_figures_show_the_committed_results(name: str, tmp_path: Path) -> None:
    def words(file: Path) -> list[str]:
        return re.findall(r"<text[^>]*>([^<]+)</text>", file.read_text(encoding="utf-8"))

    drawn = figures.draw(name, tmp_path)
    shown = words(DOCS / "assets" / f"{name}.svg")
    assert len(shown) > 10
    assert words(drawn) == shown, "draw the figures again with `python tools/docs/figures.py`"


def test_pictures_are_small() -> None:
    sizes = {file.name: file.stat().st_size for file in (DOCS / "assets").iterdir()}
    assert sizes["gap.svg"] < 200_000
    assert sizes["report.png"] < 300_000
    assert (STUDIES / "demo" / "results.json").exists()
