"""`presafe agree`: how far judges agree with people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presafe.cli import options

_NAME_LENGTH = 16
"""A longer name stands below the tables."""
_WIDTH = 120
"""Columns that the tables need."""


def agree(
    labels: Annotated[
        Path | None, typer.Argument(metavar="[LABELS]", help="JSONL of labelled answers; none: the set that ships.")
    ] = None,
    judges: Annotated[
        str, typer.Option("--judges", help="Judges, NAME or NAME=MODEL, with commas; a panel also shows its members.")
    ] = "refusal_strings,gcg_strings",
    out: options.Out = None,
) -> None:
    """Measure judges against labelled answers; the best comes first. What was judged is kept, and not asked again."""
    from rich.table import Table

    from presafe.judges.agreement import agreement, load_labelled, offline_verdicts, ranked
    from presafe.judges.refusal import OFFLINE
    from presafe.judges.spec import read_name
    from presafe.report.formatting import format_interval
    from presafe.runtime.progress import PlainConsole

    items = load_labelled(labels)
    benches = [read_name(name.strip()) for name in dict.fromkeys(judges.split(","))]
    verdicts = {bench.name: offline_verdicts(bench.name, items) for bench in benches if bench.name in OFFLINE}
    if asked := [bench for bench in benches if bench.name not in OFFLINE]:
        from presafe.judges.labelled_run import judge_labelled

        verdicts |= judge_labelled(
            asked, items, out or options.folder_for("agree", labels.stem if labels else "shipped", items)
        )
    found = ranked([agreement(judge, items, said) for judge, said in verdicts.items()])
    names = [each.judge if len(each.judge) <= _NAME_LENGTH else f"judge {n}" for n, each in enumerate(found, start=1)]
    table = Table(title=f"Judges against {len(items)} labelled answers", caption="value [95 % interval]")
    table.add_column("Judge", no_wrap=True)
    for name in ("accuracy", "false safe", "false unsafe", "blank judged", "unjudged", "Cohen's κ", "Krippendorff's α"):
        table.add_column(name, justify="right")
    for name, each in zip(names, found, strict=True):
        rates = (each.accuracy, each.false_safe, each.false_unsafe, each.blank, each.unjudged)
        beyond_chance = [format_interval(*value[:3], is_rate=False) for value in (each.kappa, each.alpha)]
        table.add_row(name, *(format_interval(*rate[:3]) for rate in rates), *beyond_chance)
    cases = Table(title="Wrong verdicts by case")
    cases.add_column("Case")
    for name in names:
        cases.add_column(name, justify="right")
    for case in found[0].wrong:
        cases.add_row(case.replace("_", " "), *(f"{each.wrong[case][0]} of {each.wrong[case][1]}" for each in found))
    console = PlainConsole()
    console.width = max(console.width, _WIDTH)  # a number that is cut is none
    console.print(table)
    console.print(cases)
    for name, each in zip(names, found, strict=True):
        if name != each.judge:
            console.print(f"{name}: {each.judge}", soft_wrap=True)
