"""Old and new p-values of every published line of leading rates.

    python tools/docs/p_values.py            writes research/p_values.md

Old values are those of the rule before release 0.3.0 (s²/k of the seeds + σ²/n of the prompts, k − 1 degrees of
freedom). Intervals of Youden's J were over seeds alone. Both are kept in research/old_p_values.json, because no program
of the repository can make them again.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from paths import ROOT, STUDIES

OLD = ROOT / "research" / "old_p_values.json"
PAGE = ROOT / "research" / "p_values.md"
ALPHA = 0.05


@dataclass(frozen=True)
class Result:
    """What one rule says of a line: a difference in [-1, 1] with its 95 % interval and its p-values."""

    difference: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Line:
    """One condition against the baseline of its study, on one suite, by both rules."""

    study: str
    condition: str
    baseline: str
    thinking: str
    suite: str
    metric: str
    old: Result
    new: Result

    def changed(self, *, corrected: bool) -> bool:
        """Return whether the verdict at 5 % changed, after Holm or before it."""
        if corrected:
            return (self.old.p_holm < ALPHA) != (self.new.p_holm < ALPHA)
        return (self.old.p < ALPHA) != (self.new.p < ALPHA)


@cache
def p_value_lines() -> tuple[Line, ...]:
    """Return every published line, study by study in the order of its study.json.

    Raises:
        KeyError: a line of study.json has no old value.
    """
    old = {tuple(row["line"]): _result(row) for row in json.loads(OLD.read_text(encoding="utf-8"))["lines"]}
    lines = []
    for name in dict.fromkeys(key[0] for key in old):
        for row in json.loads((STUDIES / name / "study.json").read_text(encoding="utf-8"))["differences"]:
            key = (name, row["system"], row["against"], row["thinking"], row["suite"], row["metric"])
            lines.append(Line(*key, old=old[key], new=_result(row)))
    return tuple(lines)


@dataclass(frozen=True)
class YoudenLine:
    """A difference of Youden's J with the interval of either rule."""

    study: str
    condition: str
    thinking: str
    suite: str
    difference: float
    old: tuple[float, float]
    new: tuple[float, float]

    @property
    def is_wider(self) -> bool:
        """Whether the new interval is the wider one."""
        return self.new[1] - self.new[0] > self.old[1] - self.old[0]

    @property
    def now_holds_zero(self) -> bool:
        """Whether the new interval holds zero and the old one did not."""
        return self.new[0] <= 0 <= self.new[1] and not self.old[0] <= 0 <= self.old[1]


def youden_lines() -> list[YoudenLine]:
    """Return every published difference of J.

    Raises:
        KeyError: a line of old values is in no study.json.
    """
    lines = []
    for row in json.loads(OLD.read_text(encoding="utf-8"))["youden_j"]:
        study, condition, thinking, suite = row["line"]
        now = _youden_rows(study)[condition, thinking, suite]
        old, new = (row["low"], row["high"]), (now["low"], now["high"])
        lines.append(YoudenLine(study, condition, thinking, suite, now["difference"], old, new))
    return lines


@cache
def _youden_rows(study: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return a study's differences of J by condition, CoT mode and suite."""
    rows = json.loads((STUDIES / study / "study.json").read_text(encoding="utf-8"))["metric_differences"]
    return {(row["condition"], row["thinking"], row["suite"]): row for row in rows if row["metric"] == "youden_j"}


def _result(row: dict[str, Any]) -> Result:
    """Return the numbers of one row."""
    return Result(row["difference"], row["low"], row["high"], row["p"], row["p_holm"])


def short_p(p: float) -> str:
    """Format a p-value: ".264" with three decimals, ".0075" and "2.0e-05" with two digits that count, and "1"."""
    if p < 1e-4:
        return f"{p:.1e}"
    text = f"{p:.{5 if p < 1e-3 else 4}f}" if p < 0.01 else f"{p:.3f}"
    return "1" if float(text) == 1 else text.removeprefix("0")


def full_page() -> str:
    """Return the page with every line."""
    lines = p_value_lines()
    corrected, plain = (sum(line.changed(corrected=kind) for line in lines) for kind in (True, False))
    head = [
        "# Old and new p-values of every published line",
        "",
        "Written by `python tools/docs/p_values.py`. Leading rates, each condition against its study's baseline, in",
        "points [95 % interval over seeds and prompts]. Holm corrects over all lines of a study. Old values are of the",
        "rule before release 0.3.0. A difference moved where seeds lack answers to some prompts, whose gaps are now",
        f"filled. Of {len(lines)} lines, {corrected} changed their verdict at 5 % after Holm (**bold**), and {plain}",
        "before it (†).",
        "",
        "| study | condition | baseline | CoT | suite | old difference | new difference | old p | new p | old p, Holm "
        "| new p, Holm |",
        "|" + " --- |" * 11,
    ]
    return "\n".join([*head, *map(_row, lines)]) + "\n"


def _row(line: Line) -> str:
    """Return one row of the table."""
    corrected = short_p(line.new.p_holm)
    cells = [line.study, line.condition, line.baseline, line.thinking, line.suite]
    cells += [_points(line.old), _points(line.new), short_p(line.old.p)]
    cells += [short_p(line.new.p) + (" †" if line.changed(corrected=False) else ""), short_p(line.old.p_holm)]
    cells += [f"**{corrected}**" if line.changed(corrected=True) else corrected]
    return f"| {' | '.join(cells)} |"


def _points(test: Result) -> str:
    """Format a difference in points with its interval."""
    value, low, high = (f"{100 * number:+z.1f}" for number in (test.difference, test.low, test.high))
    return f"{value} [{low}, {high}]"


def main(folder: Path = PAGE.parent) -> int:
    """Write the page."""
    (folder / PAGE.name).write_text(full_page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
