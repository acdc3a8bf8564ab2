"""Attacks and defenses in one table: a line per suite and attack, a column per system, and what an answer took.

harmful suites       attack success, plainly and under each attack
harmless suites      wrongly refused: what a defense costs those whom it does not concern
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from presafe.report.formatting import (
    DASH,
    METRICS,
    SUITES,
    SYSTEMS,
    display_name,
    format_duration,
    format_estimate,
    plain,
)
from presafe.report.lookup import MODES, find_score, metrics_of, suites_in, systems_in

if TYPE_CHECKING:
    from presafe.records import Score, Thinking
    from presafe.report.data import ReportData

_RATES = ("silent_success_rate", "attack_success_rate", "not_refused_rate", "over_refusal_rate")
"""What a line shows: the first of these that its suite has. A search that attacks the decision gives the first, a judge
of harm the second, a judge of refusals the third."""


class AttackColumn(NamedTuple):
    """One system in one CoT mode."""

    system: str
    thinking: Thinking


class AttackLine(NamedTuple):
    """One suite, plain or under an attack: its rate, and a cell of text per column."""

    suite: str
    metric: str
    cells: tuple[str, ...]


def is_attacked(suite: str) -> bool:
    """Return whether a suite's name is that of a suite under an attack."""
    return "@" in suite


def measures_attacks(scores: Sequence[Score]) -> bool:
    """Return whether there is an attack or a defense among rows."""
    return any(is_attacked(score.suite) or "+" in score.system for score in scores)


def attack_columns(scores: Sequence[Score]) -> list[AttackColumn]:
    """Return the systems and modes of rows, systems in their known order."""
    measured = {(score.system, score.thinking) for score in scores}
    return [AttackColumn(name, mode) for name in systems_in(scores) for mode in MODES if (name, mode) in measured]


def attack_lines(scores: Sequence[Score]) -> list[AttackLine]:
    """Return the lines of the table: each harmful suite and after it the suite under each attack, then harmless suites.

    Args:
        scores: The rows of a measurement or a run.
    """
    suites = [suite for suite in suites_in(scores) if set(_RATES) & set(metrics_of(scores, suite))]
    plain_suites = [suite for suite in suites if not is_attacked(suite)]
    ordered = [
        suite
        for plain_suite in plain_suites
        for suite in (plain_suite, *(name for name in suites if name.startswith(f"{plain_suite}@")))
    ]
    columns = attack_columns(scores)
    lines = []
    for suite in ordered:
        metric = next(rate for rate in _RATES if rate in metrics_of(scores, suite))
        lines.append(AttackLine(suite, metric, tuple(_cell(scores, column, suite, metric) for column in columns)))
    return lines


def _cell(scores: Sequence[Score], column: AttackColumn, suite: str, metric: str) -> str:
    """Return a rate with its interval and, below it, the queries and tokens of an answer."""
    rate, queries, tokens = (
        find_score(scores, column.system, column.thinking, suite, name)
        for name in (metric, "queries_per_answer", "tokens_per_answer")
    )
    if rate is None:
        return DASH
    if queries is None or tokens is None or queries.value is None or tokens.value is None:
        return format_estimate(rate)
    return f"{format_estimate(rate)}\n{queries.value:.3g} q, {tokens.value:,.0f} t"


def attack_table(data: ReportData) -> Table:
    """Return the table for a terminal; the times are those of whole systems, all suites together.

    Args:
        data: What the report shows.
    """
    columns, lines = attack_columns(data.scores), attack_lines(data.scores)
    judges = sorted({str(score.judge) for score in data.scores if score.metric in _RATES})
    times = ", ".join(f"{work} {format_duration(seconds)}" for work, seconds in data.timings_s.items())
    table = Table(
        title=Text(f"{plain(data.title)}, attacks and defenses", style="table.title"),
        caption=f"value [95 % interval]; q: queries and t: tokens read and written for an answer\n"
        f"judged by {', '.join(judges)}\n{times}",
    )
    table.add_column("Suite @ attack", overflow="fold")
    for system, thinking in columns:
        table.add_column(f"{escape(display_name(system, SYSTEMS))},\n{thinking}", justify="right", overflow="fold")
    for suite, metric, cells in lines:
        name = f"{escape(display_name(suite, SUITES))}:\n{display_name(metric, METRICS)}"
        table.add_row(name, *map(escape, cells))
    return table
