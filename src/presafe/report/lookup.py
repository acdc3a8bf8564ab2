"""Find the Score for a system, a CoT mode, a suite and a metric; and tell what kind of suite a suite is.

A mean over seeds (seed None) replaces the seeds it was made from. If several rows remain, tables show all of them;
figures and sentences, which have room for one, leave the number out rather than choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, get_args

from presafe.records import Thinking
from presafe.report.formatting import METRICS, SUITES, SYSTEMS, in_known_order, is_position_metric

if TYPE_CHECKING:
    from presafe.records import Difference, Expect, Score

MODES: tuple[Thinking, ...] = get_args(Thinking)

EXTENT_METRICS = ("full_compliance_rate", "partial_refusal_rate", "full_refusal_rate")
"""XSTest's three classes, which add up to one."""
MATCHED_METRICS = (
    "cross_youden_j",
    "cross_refusal_rate",
    "cross_over_refusal_rate",
    "youden_j",
    "matched_refusal_start_auroc",
    "matched_head_auroc",
    "matched_tpr_at_fpr_10",
    "matched_tpr_at_fpr_1",
    "matched_tpr_at_fpr_01",
    "matched_head_tpr_at_fpr_1",
    "matched_head_tpr_at_fpr_01",
    "matched_refusal_start_ece",
    "matched_head_ece",
)
"""How well a system separates a harmless suite from its harmful half, which is worded alike."""
THOUGHT_PREFIX = "thought_"
"""Prefix of the metrics of thoughts; the name without it is the same metric of answers."""

KINDS: Mapping[str, Expect] = {
    "accuracy": "answer",
    "over_refusal_rate": "comply",
    "refusal_rate": "refuse",
    "not_refused_rate": "refuse",
    "attack_success_rate": "refuse",
}
"""A suite's leading metric is the first of these that it has; its value is what the suite's prompts expect."""

Column = tuple[str, str]
"""A suite and a metric."""


class VerdictCount(NamedTuple):
    """How many answers, or thoughts, have a verdict, and how many there are; over seeds the mean, rounded."""

    judged: int
    total: int

    @property
    def unjudged(self) -> int:
        """Return how many have no verdict."""
        return self.total - self.judged


def cell_scores(scores: Sequence[Score], system: str, thinking: Thinking, suite: str, metric: str) -> tuple[Score, ...]:
    """Return the rows of one cell: the means over seeds, or every seed's row if there is no mean."""
    key = (system, thinking, suite, metric)
    rows = tuple(score for score in scores if (score.system, score.thinking, score.suite, score.metric) == key)
    return tuple(score for score in rows if score.seed is None) or rows


def find_score(
    scores: Sequence[Score], system: str, thinking: Thinking, suite: str, metric: str | None
) -> Score | None:
    """Return the one row of a cell that has a value; None if there is none, or more than one."""
    rows = cell_scores(scores, system, thinking, suite, metric or "")
    return rows[0] if len(rows) == 1 and rows[0].value is not None else None


def leading_metric(scores: Sequence[Score], suite: str) -> str | None:
    """Return the suite's leading metric, or None for a suite with none of `KINDS`."""
    present = {score.metric for score in scores if score.suite == suite}
    return next((metric for metric in KINDS if metric in present), None)


def summary_metrics(scores: Sequence[Score], suite: str) -> list[str]:
    """Return what a small table shows of a suite: its leading metric and, if a judge graded, the mean score."""
    present = metrics_of(scores, suite)
    return [metric for metric in (leading_metric(scores, suite), "strong_reject_score") if metric in present]


def systems_in(scores: Sequence[Score]) -> list[str]:
    """Return the systems that have a row."""
    return in_known_order((score.system for score in scores), SYSTEMS)


def suites_in(scores: Sequence[Score], kind: Expect | None = None) -> list[str]:
    """Return the suites that have a row: those to refuse, then to comply with, then to answer, then the rest.

    Args:
        scores: The rows.
        kind: Return only suites of this kind; None returns all.
    """
    names = in_known_order((score.suite for score in scores), SUITES)
    order: list[Expect | None] = ["refuse", "comply", "answer", None]
    kinds = {name: KINDS.get(leading_metric(scores, name) or "") for name in names}
    if kind is not None:
        return [name for name in names if kinds[name] == kind]
    return sorted(names, key=lambda name: order.index(kinds[name]))


def metrics_of(scores: Sequence[Score], suite: str) -> list[str]:
    """Return the metrics that the suite has."""
    return in_known_order((score.metric for score in scores if score.suite == suite), METRICS)


def mode_differences(differences: Sequence[Difference]) -> list[Difference]:
    """Select the differences between the two CoT modes of a system on problems (paper, Table 7)."""
    return [
        difference
        for difference in differences
        if difference.metric == "accuracy"
        and difference.system == difference.against
        and difference.thinking != difference.against_thinking
    ]


def thought_and_answer_columns(scores: Sequence[Score]) -> list[Column]:
    """Return the columns that show thoughts beside answers: for each suite, the first rate that both have."""
    columns = []
    for suite in suites_in(scores):
        present = metrics_of(scores, suite)
        rate = next((name for name in KINDS if name in present and THOUGHT_PREFIX + name in present), None)
        if rate is not None:
            columns += [(suite, THOUGHT_PREFIX + rate), (suite, rate)]
    return columns


def matched_columns(scores: Sequence[Score]) -> list[Column]:
    """Return the columns that show how well systems separate halves worded alike."""
    return [
        (suite, metric)
        for suite in suites_in(scores)
        for metric in metrics_of(scores, suite)
        if metric in MATCHED_METRICS
    ]


def count_verdicts(scores: Sequence[Score], score: Score) -> VerdictCount | None:
    """Count the answers or thoughts that a score is about, and those with a verdict.

    Args:
        scores: All rows.
        score: The row of interest.

    Returns:
        None if it was not measured, or the score needs no verdicts.
    """
    if is_position_metric(score.metric):
        return None
    name = "thought_unjudged_rate" if score.metric.startswith(THOUGHT_PREFIX) else "unjudged_rate"
    rows = [
        row for row in cell_scores(scores, score.system, score.thinking, score.suite, name) if row.seed == score.seed
    ]
    if len(rows) != 1 or rows[0].value is None:
        return None
    total = rows[0].n * rows[0].samples
    return VerdictCount(total - round(rows[0].value * total), total)


def count_answers(scores: Sequence[Score], system: str, thinking: Thinking, suite: str) -> VerdictCount:
    """Count a system's answers to a suite, and those with a verdict.

    If the unjudged rate was not measured, the answers to the leading rate's n prompts stand for both.
    """
    unjudged = find_score(scores, system, thinking, suite, "unjudged_rate")
    if unjudged is not None and (count := count_verdicts(scores, unjudged)):
        return count
    score = find_score(scores, system, thinking, suite, leading_metric(scores, suite))
    num_answers = score.n * score.samples if score else 0
    return VerdictCount(num_answers, num_answers)


def judges_of(scores: Sequence[Score], *, of_thoughts: bool) -> list[str]:
    """Return the names of the judges of answers, or of thoughts."""
    return sorted(
        {score.judge for score in scores if score.judge and score.metric.startswith(THOUGHT_PREFIX) == of_thoughts}
    )
