"""`presafe agree`: how far judges agree with people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def agree(
    labels: Annotated[
        Path | None, typer.Argument(metavar="[LABELS]", help="JSONL of labelled answers; none: the set that ships.")
    ] = None,
    judges: Annotated[str, typer.Option("--judges", help="Judges, with commas.")] = "refusal_strings,gcg_strings",
) -> None:
    """Measure judges against labelled answers; the best comes first."""
    from rich.console import Console
    from rich.table import Table

    from presafe.judges.agreement import agreement, load_labelled
    from presafe.report.labels import interval

    items = load_labelled(labels)
    found = [agreement(name.strip(), items) for name in dict.fromkeys(judges.split(","))]
    found.sort(key=lambda each: -2 if each.kappa.value is None else each.kappa.value, reverse=True)
    table = Table(title=f"Judges against {len(items)} labelled answers", caption="value [95 % interval]")
    table.add_column("Judge", no_wrap=True)
    for name in ("accuracy", "false safe", "false unsafe", "blank judged", "Cohen's κ", "Krippendorff's α"):
        table.add_column(name, justify="right")
    for each in found:
        rates = [interval(*rate[:3]) for rate in (each.accuracy, each.false_safe, each.false_unsafe, each.blank)]
        beyond_chance = [interval(*value[:3], is_rate=False) for value in (each.kappa, each.alpha)]
        table.add_row(each.judge, *rates, *beyond_chance)
    cases = Table(title="Wrong verdicts by case")
    cases.add_column("Case")
    for each in found:
        cases.add_column(each.judge, justify="right")
    for case in found[0].wrong:
        cases.add_row(case.replace("_", " "), *(f"{each.wrong[case][0]} of {each.wrong[case][1]}" for each in found))
    console = Console(highlight=False)
    console.print(table)
    console.print(cases)
