"""Each percentage in the README's prose is that of a committed result; differences and p are in `test_results`."""

from __future__ import annotations

import json
import re

import pytest
from paths import ROOT

TEXT = re.sub(r"\s+", " ", re.sub(r"\]\([^)]*\)", "]", (ROOT / "README.md").read_text(encoding="utf-8")))


def percent(study: str, system: str, suite: str, metric: str = "refusal_rate", mode: str = "on") -> int:
    """Return a rate of a committed study in whole percent."""
    rows = json.loads((ROOT / "research" / "studies" / study / "study.json").read_text(encoding="utf-8"))["scores"]
    (value,) = (
        row["value"]
        for row in rows
        if (row["system"], row["suite"], row["metric"], row["thinking"]) == (system, suite, metric, mode)
    )
    return round(100 * float(value))


def wrongly(system: str, mode: str = "on") -> tuple[int, int]:
    """Return the rates of wrong refusals of both harmless halves in the shipped recipe's study."""
    halves = ("jailbreakbench_benign", "xstest_safe")
    first, second = (percent("shipped", system, half, "over_refusal_rate", mode) for half in halves)
    return first, second


def quoted() -> dict[str, str]:
    """Return what the README must say, by the result that it is from."""
    ours, base = wrongly("presafe"), wrongly("vanilla")
    ours_off, base_off = wrongly("presafe", "off"), wrongly("vanilla", "off")
    sft = wrongly("sft")
    rows = {name: percent("every_row", name, "strong_reject") for name in ("presafe", "sft")}
    parts = {
        name: percent("methods", name, "strong_reject") for name in ("presafe", "presafe_start", "presafe_head", "sft")
    }
    assert parts["presafe"] == parts["presafe_start"]  # "as PreSafe does"
    return {
        "every_row": f"PreSafe refuses {rows['presafe']} % and SFT only {rows['sft']} %",
        "price": f"{ours[0]} against {sft[0]} % of JailbreakBench's benign half are wrongly refused",
        "credit": (
            f"L_start alone refuses {parts['presafe_start']} % of StrongREJECT, as PreSafe does; the paper's head "
            f"alone {parts['presafe_head']}, SFT only {parts['sft']}"
        ),
        "harmless": (
            f"PreSafe {ours[0]} and {ours[1]} % of the two harmless halves above (vanilla {base[0]} and {base[1]}), "
            f"with CoT off [{ours_off[0]} and {ours_off[1]} % (vanilla {base_off[0]} and {base_off[1]})]"
        ),
        "teacher": f"the teacher itself wrongly refuses {base_off[0]} and {base_off[1]} % of the two harmless halves",
    }


@pytest.mark.parametrize("result", ["every_row", "price", "credit", "harmless", "teacher"])
def test_percentages_of_the_readme_are_committed(result: str) -> None:
    assert quoted()[result] in TEXT
