"""results.json, which other programs read, and the tables for the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from presafe.report.attacks import attack_table, is_attacked, measures_attacks
from presafe.report.formatting import (
    METRICS,
    SUITES,
    SYSTEMS,
    display_name,
    format_detectable,
    format_estimate,
    format_p,
    format_points_interval,
    plain,
)
from presafe.report.lookup import MODES, find_score, suites_in, summary_metrics, systems_in
from presafe.report.sweep import panels, sampling_name

if TYPE_CHECKING:
    from presafe.report.data import ReportData

_MUCH_UNJUDGED = 0.1
"""If a larger share of answers has no verdict, the small table says so."""
SCHEMA = 3
"""Version of results.json. A change that would break a reader increases it.

3: answers that a judge of refusals says were not refused are `not_refused_rate`; `attack_success_rate` is of judges of
harm alone.

2: `head_fits`. In tables `presafe` is "PreSafe + L_start (ours)" and `presafe_head` "PreSafe (paper)"; a reader of
schema 1 finds the same rows.
"""


def results_json(data: ReportData) -> str:
    """Return results.json: {"schema", "manifest", "timings_s", "rows": one object per Score, "head_fits"}.

    Rates are in [0, 1]. `head_fits` says by system how well its head learned p′ (`HeadFit`). Where a panel judged,
    "panel" has the rows of each member and of their agreement.

    Raises:
        ValueError: a number is not finite.
    """
    results = {
        "schema": SCHEMA,
        "manifest": data.manifest,
        "timings_s": data.timings_s,
        "rows": [score.model_dump(mode="json") for score in (*data.scores, *data.sweep)],
        "head_fits": {
            name: {**fit.model_dump(mode="json"), "explained": fit.explained, "is_fitted": fit.is_fitted}
            for name, fit in data.head_fits.items()
        },
    }
    if data.panel:
        results["panel"] = [score.model_dump(mode="json") for score in data.panel]
    text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
    # A lone surrogate, which UTF-8 cannot hold, stays as JSON escapes it.
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text) + "\n"


def shown_tables(data: ReportData) -> list[Table]:
    """Return the tables for a terminal: the small one and, where attacks or defenses were measured, theirs."""
    tables = [summary_table(data)]
    return [*tables, attack_table(data)] if measures_attacks(data.scores) else tables


def summary_table(data: ReportData) -> Table:
    """Return a table with a line per system and CoT mode, and a column per suite and leading rate or graded score.

    Suites under attack have a table of their own (`attack_table`).
    """
    suites = [suite for suite in suites_in(data.scores) if not is_attacked(suite)]
    columns = [(suite, metric) for suite in suites for metric in summary_metrics(data.scores, suite)]
    table = Table(
        title=Text(plain(data.title), style="table.title"),
        caption="\n".join(["value [95 % interval]", *_unjudged_notes(data)]),
    )
    table.add_column("System", overflow="fold")
    table.add_column("CoT")
    for suite, metric in columns:
        heading = f"{_name(suite, SUITES)}:\n{_name(metric, METRICS)}"
        table.add_column(heading, justify="right", overflow="fold")
    for system in systems_in(data.scores):
        for mode in MODES:
            scores = [find_score(data.scores, system, mode, suite, metric) for suite, metric in columns]
            if any(scores):
                table.add_row(_name(system, SYSTEMS), mode, *map(format_estimate, scores))
    return table


def _name(name: str, known: Mapping[str, str]) -> str:
    """Return a name as people read it; its brackets are not markup."""
    return escape(display_name(name, known))


def _unjudged_notes(data: ReportData) -> list[str]:
    """Return a line for each system, mode and suite of which many answers have no verdict."""
    lines = []
    for system in systems_in(data.scores):
        for mode in MODES:
            for suite in suites_in(data.scores):
                score = find_score(data.scores, system, mode, suite, "unjudged_rate")
                if score is not None and score.value is not None and score.value > _MUCH_UNJUDGED:
                    cell = f"{_name(system, SYSTEMS)}, CoT {mode}, {_name(suite, SUITES)}"
                    lines.append(f"{cell}: {format_estimate(score)} have no verdict")
    return lines


def sweep_table(data: ReportData) -> Table:
    """Return a table with a line per way of sampling, and a column per suite and CoT mode."""
    columns = panels(data.sweep)
    table = Table(title=Text(plain(data.title), style="table.title"), caption="value [95 % interval]")
    table.add_column("Sampling")
    for panel in columns:
        table.add_column(
            f"{_name(panel.suite, SUITES)}, {panel.thinking}:\n{_name(panel.metric, METRICS)}",
            justify="right",
            overflow="fold",
        )
    by_name = [{sampling_name(cell): cell for cell in panel.cells} for panel in columns]
    names = dict.fromkeys(sampling_name(cell) for panel in columns for cell in panel.cells)
    for name in names:
        table.add_row(name, *(format_estimate(cells.get(name)) for cells in by_name))
    return table


def differences_table(data: ReportData) -> Table:
    """Return a table with a line per pair of systems and suite: "+86.7 [+79, +95]" points, with corrected p."""
    table = Table(
        title="Paired differences, in points",
        caption="difference [95 % interval]; p corrected after Holm\n"
        "could find: the true difference that one test at 5 % finds four times in five",
    )
    for name in ("Suite", "System", "Against"):
        table.add_column(name, overflow="fold")
    for name in ("Difference", "p", "n", "could find"):
        table.add_column(name, justify="right", overflow="fold")
    for row in data.differences:
        table.add_row(
            f"{_name(row.suite, SUITES)}: {_name(row.metric, METRICS)}",
            f"{_name(row.system, SYSTEMS)}, {row.thinking}",
            f"{_name(row.against, SYSTEMS)}, {row.against_thinking}",
            format_points_interval(row.difference, row.low, row.high),
            format_p(row.p_holm),
            str(row.n),
            format_detectable(row),
        )
    return table
