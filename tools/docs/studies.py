"""The committed study.json of each study, and how its numbers are written."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from paths import STUDIES

Key = tuple[str, str, str, str]


@cache
def study(name: str) -> dict[str, Any]:
    """Return a study's committed study.json."""
    summary: dict[str, Any] = json.loads((STUDIES / name / "study.json").read_text(encoding="utf-8"))
    return summary


@cache
def scores(name: str) -> dict[Key, dict[str, Any]]:
    """Return a study's scores, means over seeds, by (system, CoT mode, suite, metric)."""
    return {(row["system"], row["thinking"], row["suite"], row["metric"]): row for row in study(name)["scores"]}


def percent(score: dict[str, Any], digits: int = 0) -> str:
    """Format a rate with its interval, which is cut at 0 and 100: "92 [89, 94]"."""
    low, high = (round(100 * min(max(score[end], 0.0), 1.0)) for end in ("low", "high"))
    return f"{100 * score['value']:.{digits}f} [{low}, {high}]"


def signless_zero(number: str) -> str:
    """Return a formatted number without the minus of a rounded zero: "-0.00" is "0.00"."""
    return number.removeprefix("-") if float(number) == 0 else number
