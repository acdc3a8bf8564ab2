"""results.json, which other programs read, and the small table that ends a run in the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from presafe.report.labels import METRICS, SUITES, SYSTEMS, chance, detectable, estimate, label, plain, points
from presafe.report.rows import MODES, find, headline_metrics, suites, systems
from presafe.report.sensitivity import panels, sampling_name

if TYPE_CHECKING:
    from presafe.report.data import ReportData

_MUCH = 0.1
"""A share of prompts without a verdict above which the small table says so."""
SCHEMA = 1
"""Version of results.json. A change that would break a reader raises it."""


def results_json(data: ReportData) -> str:
    """results.json: {"schema", "manifest", "timings_s", "rows": one object a Score}, rates in [0, 1]."""
    results = {
        "schema": SCHEMA,
        "manifest": data.manifest,
        "timings_s": data.timings_s,
        "rows": [score.model_dump(mode="json") for score in (*data.scores, *data.sweep)],
    }
    text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
    # A lone surrogate, which UTF-8 cannot hold, stays as JSON escapes it.
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text) + "\n"


def summary_table(data: ReportData) -> Table:
    """One line a system and CoT mode, one column a suite: its leading rate as "95.0 % [91, 97]", and its score."""
    columns = [(suite, metric) for suite in suites(data.scores) for metric in headline_metrics(data.scores, suite)]
    table = Table(
        title=Text(plain(data.title), style="table.title"),
        caption="\n".join(["value [95 % interval]", *_left_out(data)]),
    )
    table.add_column("System", overflow="fold")
    table.add_column("CoT")
    for suite, metric in columns:
        table.add_column(f"{_name(suite, SUITES)}:\n{_name(metric, METRICS)}", justify="right", overflow="fold")
    for system in systems(data.scores):
        for mode in MODES:
            scores = [find(data.scores, system, mode, suite, metric) for suite, metric in columns]
            if any(scores):
                table.add_row(_name(system, SYSTEMS), mode, *(estimate(score) for score in scores))
    return table


def _name(name: str, known: Mapping[str, str]) -> str:
    """Return a name as a person reads it, whose brackets are no markup."""
    return escape(label(name, known))


def _left_out(data: ReportData) -> list[str]:
    """What the rates of the table do not count, where it is much: one line a system, mode and suite."""
    lines = []
    for system in systems(data.scores):
        for mode in MODES:
            for suite in suites(data.scores):
                score = find(data.scores, system, mode, suite, "unjudged_rate")
                if score is not None and score.value is not None and score.value > _MUCH:
                    where = f"{_name(system, SYSTEMS)}, CoT {mode}, {_name(suite, SUITES)}"
                    lines.append(f"{where}: {estimate(score)} have no verdict")
    return lines


def sweep_table(data: ReportData) -> Table:
    """One line a way of sampling, one column a suite and CoT mode."""
    columns = panels(data.sweep)
    table = Table(title=Text(plain(data.title), style="table.title"), caption="value [95 % interval]")
    table.add_column("Sampling")
    for panel in columns:
        table.add_column(
            f"{_name(panel.suite, SUITES)}, {panel.thinking}:\n{_name(panel.metric, METRICS)}",
            justify="right",
            overflow="fold",
        )
    cells = {sampling_name(cell): None for panel in columns for cell in panel.cells}
    for name in cells:
        found = [next((cell for cell in panel.cells if sampling_name(cell) == name), None) for panel in columns]
        table.add_row(name, *(estimate(score) for score in found))
    return table


def differences_table(data: ReportData) -> Table:
    """One line a pair of systems and suite: "+86.7 [+79, +95]" points, with p corrected over all lines."""
    table = Table(
        title="Paired differences, in points",
        caption="difference [95 % interval]; p corrected after Holm\n"
        "could find: the true difference that one test at 5 % finds four times in five",
    )
    for name in ("Suite", "System", "Against"):
        table.add_column(name, overflow="fold")
    for name in ("Difference", "p", "n", "could find"):
        table.add_column(name, justify="right", overflow="fold")
    for each in data.differences:
        table.add_row(
            f"{_name(each.suite, SUITES)}: {_name(each.metric, METRICS)}",
            f"{_name(each.system, SYSTEMS)}, {each.thinking}",
            f"{_name(each.against, SYSTEMS)}, {each.against_thinking}",
            f"{points(each.difference)} [{points(each.low)}, {points(each.high)}]",
            chance(each.p_holm),
            str(each.n),
            detectable(each),
        )
    return table
