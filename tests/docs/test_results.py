"""Numbers in README.md and docs/ equal the committed results of the studies."""

from __future__ import annotations

import re
from pathlib import Path

import figures
import pytest
import results
import studies
from p_values import PAGE, full_page, p_value_lines, youden_lines
from pairs import Pair, pair_difference
from paths import DOCS, ROOT, STUDIES, pages

KEYS = ("differences", "metric_differences")
MORE = ("methods", "more_steps", "better_baseline", "thinking_on_only")
PAGES = [page for page in pages() if results.marked_tables(page.read_text(encoding="utf-8"))]
_NUMBERS = r"(?:\.\d+|1\b)(?:(?:, | and )(?:\.\d+|1\b))*"
_HOLM = re.compile(rf"after Holm(?: over [\w' ]*lines)?(?: p =)? {_NUMBERS}|p = {_NUMBERS} after Holm")
_PLAIN = re.compile(rf"p = {_NUMBERS}")
_P = re.compile(r"(?<![\d.])(?:\.\d+|1\b)")
_QUOTED = re.compile(r"(?<![\d.])([+-]\d*\.?\d+)(?: points)? \[([+-]\d*\.?\d+), ([+-]\d*\.?\d+)\]")
"""A difference as a text quotes it: "+24 [+12, +35]" in points, "+.17 [+.06, +.29]" as it is."""


def test_many_pages_have_tables_from_the_results() -> None:
    # README, the walk-through of the demo, the front, and of Research: the short results, shipped, CoT off, operating
    # points, without rows with CoT off, control, thought, methods, ablations, head, transfer, how sure we are, judge,
    # gate and speed
    assert len(PAGES) == 18


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_tables_are_the_committed_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == results.filled(text), "write the tables again with `python tools/docs/results.py`"


def test_a_changed_number_in_a_table_is_found() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    changed = text.replace("| 92 [86, 97] |", "| 93 [86, 97] |")
    assert changed != text
    assert results.filled(changed) == text


def test_numbers_are_written_as_the_tables_write_them() -> None:
    # an interval is cut at 0 and 100; a rounded zero has no minus
    assert studies.percent({"value": 0.886, "low": 0.73, "high": 1.04}) == "89 [73, 100]"
    assert results.points({"difference": -0.001, "low": -0.12, "high": 0.35}) == "+0 [-12, +35]"
    assert studies.signless_zero("-0.00") == "0.00"
    assert results.probability(0.0439) == ".044"
    assert results.probability(1.0) == "1"


def differences(names: list[str]) -> list[tuple[float, float, float]]:
    """Every difference of some studies with its interval, as a fraction."""
    rows = [row for name in names for key in KEYS for row in studies.study(name)[key]]
    return [(row["difference"], row["low"], row["high"]) for row in rows if row["low"] is not None]


def text_of(page: str) -> str:
    """Return a page, without the sentences that it quotes as they were (a column "before")."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.sub(r"^(\| \[[^|]+\| )[^|]+", r"\1", text, flags=re.MULTILINE) if page.endswith("inference.md") else text


def prose(text: str) -> str:
    """Return a page's text in one line, without the tables that are written from the results."""
    return " ".join(re.sub(r"<!-- table:.*?<!-- /table -->", "", text, flags=re.DOTALL).split())


def quoted_differences(text: str) -> list[tuple[str, str, str]]:
    """Every difference that a page quotes outside the tables that are written from the results."""
    return _QUOTED.findall(prose(text))


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
    "docs/index.md": ["shipped"],
    "docs/research/index.md": [
        "shipped",
        "rate_5",
        "every_row",
        "control",
        "thought",
        "better_baseline",
        "transfer",
        *MORE,
    ],
    "docs/research/shipped.md": ["shipped"],
    "docs/research/cot-off.md": ["shipped"],
    "docs/research/decision.md": ["control"],
    "docs/research/every-row.md": ["every_row"],
    "docs/research/control.md": ["control"],
    "docs/research/thought.md": ["thought", "better_baseline"],
    "docs/research/methods.md": ["methods", "ablations"],
    "docs/research/ablations.md": ["more_steps", "methods", "ablations"],
    "docs/research/thinking-on-only.md": ["thinking_on_only"],
    "docs/research/operating-points.md": ["rate_5", "operating_points"],
    "docs/research/head.md": ["head"],
    "docs/research/transfer.md": ["transfer"],
    "docs/research/inference.md": ["shipped", "every_row", "control", "rate_5", "operating_points", "thought", *MORE],
}
"""Pages, and the studies that their quoted differences and p-values are from."""
RECIPES = {
    "-.05 [-.25, +.15]": Pair("shipped/presafe", "thinking_on_only/presafe", "jailbreakbench_benign", "youden_j"),
    "+.025 [-.012, +.061]": Pair("shipped/presafe", "thinking_on_only/presafe", "xstest_safe", "youden_j"),
}
OTHER_PAIRS: dict[str, dict[str, Pair]] = {
    "docs/research/shipped.md": {
        **RECIPES,
        "+.17 [+.05, +.29]": Pair("shipped/sft", "thinking_on_only/sft", "jailbreakbench_benign", "youden_j"),
        "+6 [-12, +23]": Pair("shipped/presafe", "thinking_on_only/presafe", "jailbreakbench", "refusal_rate"),
        "+11 [-7, +28]": Pair(
            "shipped/presafe", "thinking_on_only/presafe", "jailbreakbench_benign", "over_refusal_rate"
        ),
    },
    "docs/research/thinking-on-only.md": RECIPES,
    "docs/research/inference.md": RECIPES,
    "docs/research/control.md": {
        "-22 [-51, +7]": Pair("control/shuffled_labels", "control/sft", "strong_reject", "refusal_rate", (0, 1, 2, 3)),
    },
    "docs/research/transfer.md": {
        "+.17 [+.06, +.28]": Pair("transfer/start", "transfer/both-constant", "chess_benign", "youden_j"),
        "+.11 [-.05, +.27]": Pair("transfer/both", "transfer/both-constant", "chess_benign", "youden_j"),
        "+.32 [+.17, +.47]": Pair("transfer/start", "transfer/both-true_labels", "chess_benign", "youden_j"),
    },
    "docs/research/ablations.md": {
        "+.16 [+.03, +.29]": Pair("ablations/sft-steps_80", "ablations/sft", "jailbreakbench_benign", "youden_j"),
    },
    "docs/research/operating-points.md": {
        "+12 [-1, +24]": Pair(
            "operating_points/presafe-rate_2.5",
            "operating_points/sft-rate_2.5",
            "jailbreakbench_benign",
            "over_refusal_rate",
        ),
        "+3 [-2, +8]": Pair(
            "operating_points/presafe-rate_2.5", "operating_points/sft-rate_2.5", "xstest_safe", "over_refusal_rate"
        ),
    },
}
"""Quoted differences of pairs that no study's JSON holds: two recipes, two numbers of steps, fewer seeds."""


@pytest.mark.parametrize("page", QUOTES)
def test_quoted_differences_are_committed(page: str) -> None:
    quotes = quoted_differences(text_of(page))
    known = differences(QUOTES[page])
    pairs = OTHER_PAIRS.get(page, {})
    unknown = {f"{value} [{low}, {high}]" for value, low, high in quotes if not is_committed((value, low, high), known)}
    assert quotes
    assert unknown <= pairs.keys()
    assert pairs.keys() <= {f"{value} [{low}, {high}]" for value, low, high in quotes}


def test_every_page_with_a_quoted_difference_is_checked() -> None:
    quoting = [page for page in pages() if quoted_differences(page.read_text(encoding="utf-8"))]
    assert {page.relative_to(ROOT).as_posix() for page in quoting} == set(QUOTES)


@pytest.mark.parametrize(
    ("quote", "pair"), {quote: pair for pairs in OTHER_PAIRS.values() for quote, pair in pairs.items()}.items()
)
def test_other_pairs_are_computed_from_the_committed_runs(quote: str, pair: Pair) -> None:
    row = pair_difference(pair)
    assert row.low is not None
    assert row.high is not None
    assert row.over == "seeds and prompts"
    (numbers,) = _QUOTED.findall(quote)
    assert is_committed(numbers, [(row.difference, row.low, row.high)])


def test_a_pair_of_one_study_is_that_of_its_summary() -> None:
    pair = Pair("shipped/presafe", "shipped/sft", "xstest_safe", "youden_j")
    (row,) = [
        row
        for row in studies.study("shipped")["metric_differences"]
        if (row["condition"], row["thinking"], row["suite"], row["metric"]) == ("presafe", "on", *pair[2:4])
    ]
    assert pair_difference(pair).model_dump() == pytest.approx(row | {"condition": "condition"})


def p_values(names: list[str], key: str) -> list[float]:
    """Return all p-values of some studies: "p" of rates and other metrics, or "p_holm" of rates."""
    parts = (*KEYS, "endpoints")
    rows = [row for name in names for part in parts for row in studies.study(name)[part]]
    return [row[key] for row in rows if row.get(key) is not None]


def quoted_p_values(text: str) -> tuple[list[str], list[str]]:
    """Return the p-values that a text quotes, and those that it quotes as corrected ("after Holm")."""
    corrected = [number for match in _HOLM.finditer(text) for number in _P.findall(match[0])]
    plain = [number for match in _PLAIN.finditer(_HOLM.sub("", text)) for number in _P.findall(match[0])]
    return plain, corrected


def is_known_p(quote: str, known: list[float]) -> bool:
    """Whether a p-value is one of some, rounded as it is quoted."""
    digits = len(quote.partition(".")[2])
    return any(round(p, digits) == float(quote) for p in known)


def test_p_values_are_found_in_prose() -> None:
    text = "+24 [+15, +32], p = .00031, after Holm .0075; (p = .076 and .42 after Holm); p = .02, uncorrected"
    assert quoted_p_values(text) == ([".00031", ".02"], [".0075", ".076", ".42"])
    assert quoted_p_values("after Holm over 24 lines p = .0075, .076 and 1.") == ([], [".0075", ".076", "1"])
    assert quoted_p_values("p < .05, p = 0.5") == ([], [])


def test_each_p_value_quoted_in_prose_is_committed() -> None:
    number = 0
    for page, names in QUOTES.items():
        plain, corrected = quoted_p_values(prose(text_of(page)))
        number += len(plain) + len(corrected)
        assert [p for p in plain if not is_known_p(p, p_values(names, "p"))] == [], page
        assert [p for p in corrected if not is_known_p(p, p_values(names, "p_holm"))] == [], page
    assert number > 60


def test_pages_without_studies_quote_no_p_value() -> None:
    others = [page for page in pages() if page.relative_to(ROOT).as_posix() not in QUOTES]
    quoting = [page.name for page in others if any(quoted_p_values(prose(page.read_text(encoding="utf-8"))))]
    assert quoting == []


def test_page_of_all_p_values_is_written_from_the_studies() -> None:
    assert PAGE.read_text(encoding="utf-8") == full_page()
    assert len(p_value_lines()) == 429
    # of all studies from before the rule; later ones declare their endpoints
    names = {file.parent.name for file in STUDIES.glob("*/study.json")}
    earlier = {name for name in names if not studies.study(name).get("declares_endpoints")}
    assert {line.study for line in p_value_lines()} == earlier


def test_counts_of_changed_verdicts_are_those_of_the_page() -> None:
    changed = [line for line in p_value_lines() if line.changed(corrected=True)]
    assert all(line.new.p_holm < line.old.p_holm for line in changed)  # from "not shown" to "shown"
    lines = youden_lines()
    wider, now_zero = sum(line.is_wider for line in lines), sum(line.now_holds_zero for line in lines)
    page = prose(text_of("docs/research/inference.md"))
    assert f"{len(changed)} of {len(p_value_lines())} published lines of rates changed their verdict" in page
    assert f"Of {len(lines)} differences of J, {wider} have a wider interval" in page
    assert f"{now_zero} of these intervals now hold zero and did not before" in page
    assert not any(line.old[0] <= 0 <= line.old[1] and not line.new[0] <= 0 <= line.new[1] for line in lines)


@pytest.mark.parametrize("name", figures.FIGURES)
def test_figures_show_the_committed_results(name: str, tmp_path: Path) -> None:
    def words(file: Path) -> list[str]:
        return re.findall(r"<text[^>]*>([^<]+)</text>", file.read_text(encoding="utf-8"))

    drawn = figures.draw(name, tmp_path)
    shown = words(DOCS / "assets" / f"{name}.svg")
    assert len(shown) > 10
    assert words(drawn) == shown, "draw the figures again with `python tools/docs/figures.py`"


EVIDENCE = [page for page in sorted((DOCS / "research").glob("*.md")) if page.name not in ("speed.md", "qwenthink.md")]
"""Pages that open with an answer and a figure; not those without results: `make bench` has made no record, and no
organism is trained."""


def opens_with_answer_and_figure(text: str) -> bool:
    """Return whether a page opens with a title, a sentence in bold, and a figure at most one paragraph later."""
    title, answer, *rest = text.split("\n\n")[:4]
    return title.startswith("# ") and answer.startswith("**") and any(part.startswith("![") for part in rest)


@pytest.mark.parametrize("page", EVIDENCE, ids=lambda page: page.name)
def test_a_page_of_evidence_opens_with_answer_and_figure(page: Path) -> None:
    assert opens_with_answer_and_figure(page.read_text(encoding="utf-8"))


def test_a_page_without_answer_or_figure_is_found() -> None:
    assert opens_with_answer_and_figure("# Title\n\n**Yes.**\n\n![A figure](a.svg)\n")
    assert not opens_with_answer_and_figure("# Title\n\n**Yes.**\n\nWords.\n\nWords.\n\n![A figure](a.svg)\n")
    assert not opens_with_answer_and_figure("# Title\n\nWords.\n\n![A figure](a.svg)\n")


def test_pictures_are_small() -> None:
    sizes = {file.name: file.stat().st_size for file in (DOCS / "assets").iterdir()}
    assert sizes["gap.svg"] < 200_000
    assert sizes["report.png"] < 300_000
    assert (STUDIES / "demo" / "results.json").exists()
