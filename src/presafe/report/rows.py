"""Which Score stands for a system, a CoT mode, a suite and a metric; and what kind of suite a suite is.

A mean over seeds (seed None) stands before the seeds it was made from. Where several rows remain, tables show
them all, and figures and sentences, which have room for one, leave the number out rather than choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from presafe.report.labels import METRICS, SUITES, SYSTEMS, of_position, ordered

if TYPE_CHECKING:
    from presafe.records import Difference, Expect, Score, Thinking

MODES: tuple[Thinking, ...] = ("on", "off")

EXTENTS = ("full_compliance_rate", "partial_refusal_rate", "full_refusal_rate")
"""XSTest's three classes, which add up to one."""
HALVES = ("youden_j", "matched_refusal_start_auroc", "matched_head_auroc", "matched_tpr_at_fpr_10")
"""How well a suite's harmful half is told from its harmless one, which is worded alike."""
THOUGHT = "thought_"
"""What the metrics of thoughts begin with; without it stands that of the answers."""

KINDS: Mapping[str, Expect] = {
    "accuracy": "answer",
    "over_refusal_rate": "comply",
    "refusal_rate": "refuse",
    "attack_success_rate": "refuse",
}
"""A suite's leading metric is the first of these that it has, and tells what its prompts expect."""


def cell(scores: Sequence[Score], system: str, thinking: Thinking, suite: str, metric: str) -> tuple[Score, ...]:
    """The rows that stand for one cell: the means over seeds, or without one every seed's row."""
    key = (system, thinking, suite, metric)
    rows = tuple(score for score in scores if (score.system, score.thinking, score.suite, score.metric) == key)
    return tuple(score for score in rows if score.seed is None) or rows


def find(scores: Sequence[Score], system: str, thinking: Thinking, suite: str, metric: str) -> Score | None:
    """The one row of a cell that has a value; None where there is none, or more than one."""
    rows = cell(scores, system, thinking, suite, metric)
    return rows[0] if len(rows) == 1 and rows[0].value is not None else None


def lead(scores: Sequence[Score], suite: str) -> str | None:
    """The suite's leading metric; None for a suite that has none of `KINDS`."""
    present = {score.metric for score in scores if score.suite == suite}
    return next((metric for metric in KINDS if metric in present), None)


def headline_metrics(scores: Sequence[Score], suite: str) -> list[str]:
    """What a small table shows of a suite: its leading metric and, where a judge graded, the mean score."""
    present = metrics(scores, suite)
    return [metric for metric in (lead(scores, suite), "strong_reject_score") if metric in present]


def systems(scores: Sequence[Score]) -> list[str]:
    """The systems that have a row."""
    return ordered((score.system for score in scores), SYSTEMS)


def suites(scores: Sequence[Score], kind: Expect | None = None) -> list[str]:
    """The suites that have a row: those to refuse, then to comply with, then to answer, then the rest."""
    names = ordered((score.suite for score in scores), SUITES)
    kinds: list[Expect | None] = ["refuse", "comply", "answer", None]
    kind_of = {name: KINDS.get(lead(scores, name) or "") for name in names}
    if kind is not None:
        return [name for name in names if kind_of[name] == kind]
    return sorted(names, key=lambda name: kinds.index(kind_of[name]))


def metrics(scores: Sequence[Score], suite: str) -> list[str]:
    """The metrics that the suite has."""
    return ordered((score.metric for score in scores if score.suite == suite), METRICS)


def between_modes(differences: Sequence[Difference]) -> list[Difference]:
    """Those of one system's two CoT modes on problems: what the CoT is worth (paper, Table 7)."""
    return [
        each
        for each in differences
        if each.metric == "accuracy" and each.system == each.against and each.thinking != each.against_thinking
    ]


def apart(scores: Sequence[Score]) -> list[tuple[str, str]]:
    """The columns in which answers and thoughts stand side by side: of each suite the rate that both have."""
    columns = []
    for suite in suites(scores):
        present = metrics(scores, suite)
        both = (name for name in KINDS if name in present and THOUGHT + name in present)
        columns += [(suite, each) for name in list(both)[:1] for each in (THOUGHT + name, name)]
    return columns


def halves(scores: Sequence[Score]) -> list[tuple[str, str]]:
    """The columns that tell how well halves worded alike are told apart."""
    return [(suite, metric) for suite in suites(scores) for metric in metrics(scores, suite) if metric in HALVES]


def without_verdict(scores: Sequence[Score], score: Score) -> tuple[int, int] | None:
    """How many answers, or thoughts, the score leaves out for want of a verdict, and how many there are.

    Over seeds it is their mean, rounded. None where it was not measured, or the score rests on no verdicts.
    """
    if of_position(score.metric):
        return None
    name = "thought_unjudged_rate" if score.metric.startswith(THOUGHT) else "unjudged_rate"
    rows = [row for row in cell(scores, score.system, score.thinking, score.suite, name) if row.seed == score.seed]
    if len(rows) != 1 or rows[0].value is None:
        return None
    asked = rows[0].n * rows[0].samples
    return round(rows[0].value * asked), asked


def judged(scores: Sequence[Score], system: str, thinking: Thinking, suite: str) -> tuple[int, int]:
    """How many answers have a verdict, and how many there are; over seeds their mean, rounded.

    Where the unjudged rate was not measured, the answers to the leading rate's n prompts stand for both.
    """
    unjudged = find(scores, system, thinking, suite, "unjudged_rate")
    if unjudged is not None and (missing := without_verdict(scores, unjudged)):
        return missing[1] - missing[0], missing[1]
    score = find(scores, system, thinking, suite, lead(scores, suite) or "")
    return (score.n * score.samples, score.n * score.samples) if score else (0, 0)
