"""`presafe agree`: how far judges agree with people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from presafe.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from presafe.judges.agreement import Agreement

_NAME_LENGTH = 16
"""A longer name is printed below the tables."""
_WIDTH = 120
"""Width that the tables need, in characters."""


def agree(
    labels: Annotated[
        Path | None, typer.Argument(metavar="[LABELS]", help="JSONL of labelled answers; else the shipped set.")
    ] = None,
    judges: Annotated[
        str, typer.Option("--judges", help="Judges, NAME or NAME=MODEL, with commas; a panel also shows its members.")
    ] = "refusal_strings,gcg_strings",
    out: options.Out = None,
) -> None:
    """Measure judges against labelled answers, the best first. The same command again resumes."""
    from presafe.judges.agreement import agreement, load_labelled, offline_verdicts, ranked
    from presafe.judges.refusal import OFFLINE
    from presafe.judges.spec import read_name
    from presafe.runtime.progress import PlainConsole

    items = load_labelled(labels)
    panels = [read_name(name.strip()) for name in dict.fromkeys(judges.split(","))]
    verdicts = {panel.name: offline_verdicts(panel.name, items) for panel in panels if panel.name in OFFLINE}
    if asked := [panel for panel in panels if panel.name not in OFFLINE]:
        from presafe.judges.labelled_run import judge_labelled

        verdicts |= judge_labelled(
            asked, items, out or options.folder_for("agree", labels.stem if labels else "shipped", items)
        )
    agreements = ranked([agreement(judge, items, judged) for judge, judged in verdicts.items()])
    names = {
        measured.judge: measured.judge if len(measured.judge) <= _NAME_LENGTH else f"judge {number}"
        for number, measured in enumerate(agreements, start=1)
    }
    console = PlainConsole()
    console.width = max(console.width, _WIDTH)  # a narrow terminal would cut numbers
    console.print(_agreement_table(agreements, names, len(items)))
    console.print(_case_table(agreements, names))
    for judge, name in names.items():
        if name != judge:
            console.print(f"{name}: {judge}", soft_wrap=True)


def _agreement_table(agreements: Sequence[Agreement], names: Mapping[str, str], count: int) -> Table:
    """Return a table with a line per judge.

    Args:
        agreements: The judges, the best first.
        names: Names in the tables by judge.
        count: Number of labelled answers.
    """
    from rich.table import Table

    from presafe.report.formatting import format_interval

    table = Table(title=f"Judges against {count} labelled answers", caption="value [95 % interval]")
    table.add_column("Judge", no_wrap=True)
    for title in (
        "accuracy",
        "false safe",
        "false unsafe",
        "blank judged",
        "unjudged",
        "Cohen's κ",
        "Krippendorff's α",
    ):
        table.add_column(title, justify="right")
    for judge in agreements:
        rates = (judge.accuracy, judge.false_safe, judge.false_unsafe, judge.blank, judge.unjudged)
        beyond_chance = [format_interval(*value[:3], is_rate=False) for value in (judge.kappa, judge.alpha)]
        table.add_row(names[judge.judge], *(format_interval(*rate[:3]) for rate in rates), *beyond_chance)
    return table


def _case_table(agreements: Sequence[Agreement], names: Mapping[str, str]) -> Table:
    """Return a table of the wrong verdicts, with a line per case and a column per judge."""
    from rich.table import Table

    table = Table(title="Wrong verdicts by case")
    table.add_column("Case")
    for judge in agreements:
        table.add_column(names[judge.judge], justify="right")
    for case in agreements[0].wrong:
        counts = [judge.wrong[case] for judge in agreements]
        table.add_row(case.replace("_", " "), *(f"{wrong} of {total}" for wrong, total in counts))
    return table
