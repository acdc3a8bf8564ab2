"""Each percentage in prose is a committed result, rounded as it is quoted, or is declared with its source.

`percentages.toml` lists, by page, sentences whose numbers are placeholders, and sentences whose numbers have no record
here, with their source. A placeholder is read from the committed JSON of a study:

    {[study:]system[@mode] suite [metric] [#seed] [.digits] [ci]}

The study is the page's where none is named, the mode "on", the metric the suite's own. `#2` is a seed's value; `#min`,
`#max` and `#mean` are taken over the seeds; without it the value is the study's mean. `ci` adds the interval.
Agreement of the refusal strings with labels is `{judge:set[@version] value [.digits] [ci]}`.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from coverage_of_rules import committed as simulated
from judge_tables import OURS, measured
from paths import ROOT, STUDIES, pages

from presafe.judges.refusal import STRINGS_VERSION

QUOTED: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("percentages.toml").read_text("utf-8"))
SUITES = {
    "sr": ("strong_reject", "refusal_rate"),
    "jb": ("jailbreakbench", "refusal_rate"),
    "xu": ("xstest_unsafe", "refusal_rate"),
    "jbb": ("jailbreakbench_benign", "over_refusal_rate"),
    "xs": ("xstest_safe", "over_refusal_rate"),
    "sums": ("arithmetic", "accuracy"),
    "harmful": ("smolthink_harmful", "refusal_rate"),
    "benign": ("smolthink_benign", "over_refusal_rate"),
    "borderline": ("smolthink_borderline", "over_refusal_rate"),
}
"""Suites by the short names of the placeholders, each with its own metric."""
METRICS = {
    "nr": "not_refused_rate",
    "tpr": "matched_tpr_at_fpr_10",
    "thought": "with_thought_rate",
    "none": "unjudged_rate",
}
OVER_SEEDS: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max, "mean": fmean}
_NUMBER = r"\d+(?:\.\d+)?"
_PERCENT = re.compile(rf"(?<![\w.+\-\[]){_NUMBER}(?:(?:, | and | to | against | or ){_NUMBER})* ?%(?! interval)")
_PLACEHOLDER = re.compile(r"\{([^}]*)\}")


def prose(text: str) -> str:
    """Return a page in one line, without the tables that are written from the results, code, and targets of links."""
    for part in (r"<!-- table:.*?<!-- /table -->", r"```.*?```", r"(?<=\])\([^)]*\)"):
        text = re.sub(part, "", text, flags=re.DOTALL)
    return " ".join(text.split())


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def rows(study: str, seed: bool) -> list[dict[str, Any]]:
    """Return a study's committed rows: means over seeds, or each seed's under the name of its condition."""
    if study.startswith("demo/"):
        found = json.loads((STUDIES / f"{study}.json").read_text(encoding="utf-8"))["rows"]
        means = {row["system"] for row in found if row["seed"] is None}
        return [row for row in found if (row["seed"] is not None) == (seed or row["system"] not in means)]
    if not seed:
        means_of_study: list[dict[str, Any]] = json.loads((STUDIES / study / "study.json").read_text("utf-8"))["scores"]
        return means_of_study
    folder = STUDIES / study / "runs" if (STUDIES / study / "runs").exists() else STUDIES / study
    found = []
    for file in sorted(folder.glob("*-seed*.json")):
        run = json.loads(file.read_text(encoding="utf-8"))
        condition, _, number = file.stem.rpartition("-seed")
        # the record of a run, or of a measurement of its adapter
        system, scores = (run["system"], run["scores"]) if "scores" in run else ("adapted", run["rows"])
        own = {"system": condition, "seed": int(number)}
        found += [row | own for row in scores if row["system"] == system]
    return found


def written(numbers: list[float], options: list[str]) -> str:
    """Return a share in percent, with ".1" to one digit, and with "ci" followed by its interval."""
    digits = next((int(option[1:]) for option in options if option.startswith(".")), 0)
    share, *ends = (100 * number for number in numbers)
    return f"{share:.{digits}f}" + (f" % [{ends[0]:.0f}, {ends[1]:.0f}]" if "ci" in options else "")


def agreement_of(placeholder: str) -> str:
    """Return a share of agreement of the refusal strings with the labels of a set."""
    name, value, *options = placeholder.removeprefix("judge:").split()
    labels, _, version = name.partition("@")
    numbers = getattr(measured(labels)[f"{OURS}, version {version or STRINGS_VERSION}"], value)
    return written(list(numbers[:3]), options)


def value_of(placeholder: str, page_study: str) -> str:
    """Return what a placeholder stands for, in percent."""
    if placeholder.startswith("judge:"):
        return agreement_of(placeholder)
    system, suite, *options = placeholder.split()
    study, _, system = system.rpartition(":")
    system, _, mode = system.partition("@")
    suite, metric = SUITES[suite]
    seed = next((option[1:] for option in options if option.startswith("#")), "")
    metric = next((METRICS[option] for option in options if option in METRICS), metric)
    found = [
        row
        for row in rows(study or page_study, bool(seed))
        if (row["system"], row["thinking"], row["suite"], row["metric"]) == (system, mode or "on", suite, metric)
        and row["value"] is not None
        and (not seed.isdigit() or row["seed"] == int(seed))
    ]
    assert found, f"no committed result for {placeholder!r}"
    if seed in OVER_SEEDS:
        assert len(found) > 1, placeholder
        return written([OVER_SEEDS[seed]([float(row["value"]) for row in found])], options)
    (row,) = found
    return written([row["value"], row["low"], row["high"]], options)


def filled(quote: str, study: str) -> str:
    """Return a quote with the committed numbers in the place of its placeholders."""
    return _PLACEHOLDER.sub(lambda match: value_of(match[1], study), quote)


def simulated_shares() -> list[str]:
    """Return what the page on inference says of the simulated experiments."""
    shares = [row.crossed for row in simulated()]
    inside = [share for share in shares if 0.93 <= share <= 0.97]
    first, second = sorted(100 * share for share in set(shares) - set(inside))
    rejected = [100 * (1 - row.crossed) for row in simulated() if not row.setting.effect]
    settings = f"In {len(inside)} of {len(shares)} simulated settings the 95 % interval"
    return [
        f"{settings} holds the true difference in 93 to 97 %",
        f"in the other two, in {first:.1f} and {second:.1f} %",
        f"Under a true null it rejects {min(rejected):.1f} to {max(rejected):.1f} %",
    ]


def quotes_of(page: str) -> list[str]:
    """Return what a page must say."""
    declared = QUOTED.get(page, {})
    quotes = [filled(quote, declared.get("study", "")) for quote in declared.get("quotes", ())]
    return quotes + (simulated_shares() if page == "docs/research/inference.md" else [])


def uncovered(text: str, quotes: list[str]) -> list[str]:
    """Return the percentages of a text that stand in none of the quotes, with some words around them."""
    spans = [match.span() for quote in quotes for match in re.finditer(re.escape(quote), text)]
    return [
        text[max(0, match.start() - 60) : match.end() + 40]
        for match in _PERCENT.finditer(text)
        if not any(start <= match.start() and match.end() <= end for start, end in spans)
    ]


def missing(text: str, quotes: list[str]) -> list[str]:
    """Return the quotes that a text does not hold."""
    return [quote for quote in quotes if quote not in text]


def text_of(page: str) -> str:
    return prose((ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", QUOTED)
def test_quotes_hold_the_committed_numbers(page: str) -> None:
    assert missing(text_of(page), quotes_of(page)) == []
    assert missing(text_of(page), list(QUOTED[page].get("declared", {}))) == []


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_percentage_is_committed_or_declared(page: Path) -> None:
    name = name_of(page)
    assert uncovered(text_of(name), quotes_of(name) + list(QUOTED.get(name, {}).get("declared", {}))) == []


@pytest.mark.parametrize("page", [page for page in QUOTED if QUOTED[page].get("quotes")])
def test_a_changed_percentage_is_found(page: str) -> None:
    # One more in the place of each number that the page quotes, one quote at a time.
    text = text_of(page)
    for template, quote in zip(QUOTED[page]["quotes"], quotes_of(page), strict=False):
        first = template.index("{")
        number = re.match(_NUMBER, quote[first:])
        assert number is not None
        wrong = f"{quote[:first]}{float(number[0]) + 1:g}{quote[first + number.end() :]}"
        assert missing(text.replace(quote, wrong), [quote]) == [quote]


def test_a_changed_record_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = [row | {"value": row["value"] + 0.01} for row in rows("shipped", False) if row["value"] is not None]
    monkeypatch.setattr(f"{__name__}.rows", lambda study, seed: changed)
    assert "and 93 % with PreSafe" in missing(text_of("docs/index.md"), quotes_of("docs/index.md"))


def test_percentages_are_found_in_prose() -> None:
    text = "from 88, 56 and 53 % to 60 to 92 %; 6.5% [2, 9], 95 % interval, +24 [+15 %], 45 against 19 %"
    found = [match[0] for match in _PERCENT.finditer(text)]
    assert found == ["88, 56 and 53 %", "60 to 92 %", "6.5%", "45 against 19 %"]
    text = "refused 88 % of it, and 7 % of those"
    assert uncovered(text, ["refused 88 % of it"]) == [text]
    assert uncovered(text, ["refused 88 % of it", "and 7 % of"]) == []
