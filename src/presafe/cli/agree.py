"""`presafe agree`: how far judges agree with people, and how steady they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presafe.cli import options
from presafe.cli.output import AsJson, print_json, print_tables

if TYPE_CHECKING:
    from rich.table import Table

    from presafe.judges.agreement import Agreement, Labelled
    from presafe.judges.perturbation import Flips
    from presafe.judges.spec import Panel
    from presafe.records import Verdict

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
    perturb: Annotated[
        bool, typer.Option("--perturb", help="Also judge the answers in other forms, and count the verdicts that flip.")
    ] = False,
    as_json: AsJson = False,
    out: options.Out = None,
) -> None:
    """Measure judges against labelled answers, the best first. The same command again resumes."""
    from presafe.judges.agreement import agreement, between, load_labelled, ranked
    from presafe.judges.spec import read_name

    items = load_labelled(labels)
    panels = [read_name(name.strip()) for name in dict.fromkeys(judges.split(","))]
    folder = out or options.folder_for("agree", labels.stem if labels else "shipped", items)
    verdicts = _verdicts(panels, items, folder)
    agreements = ranked([agreement(judge, items, judged) for judge, judged in verdicts.items()])
    pairs = [between(left, verdicts[left], right, verdicts[right]) for left, right in combinations(verdicts, 2)]
    flips = _flips(panels, items, verdicts, folder) if perturb else []
    unordered = [judge for judge in verdicts if perturb and not read_name(judge).has_label_order]
    if as_json:
        print_json(
            {
                "num_answers": len(items),
                "judges": [_as_json(measured) for measured in agreements],
                "pairs": [_as_json(pair) for pair in pairs],
                "flips": [_as_json(row) for row in flips],
                "without_label_order": unordered,
            }
        )
        return
    names = {
        measured.judge: measured.judge if len(measured.judge) <= _NAME_LENGTH else f"judge {number}"
        for number, measured in enumerate(agreements, start=1)
    }
    tables = [_agreement_table(agreements, names, len(items)), _case_table(agreements, names)]
    if pairs:
        rows = [(names[pair.left], names[pair.right], pair.same, pair.kappa) for pair in pairs]
        tables.append(_table("Judges against one another", ("Judge", "Judge", "same verdict", "Cohen's κ"), rows))
    if flips:
        tables.append(_flip_table(flips, names))
    print_tables(*tables, width=_WIDTH)
    if unordered:
        print(f"Label order: not for {', '.join(unordered)}, as no prompt of theirs lists classes.")
    for judge, name in names.items():
        if name != judge:
            print(f"{name}: {judge}")


def _verdicts(
    panels: Sequence[Panel], items: Sequence[Labelled], folder: Path, *, reversed_labels: bool = False
) -> dict[str, list[Verdict]]:
    """Return the verdicts by judge; only model judges need the folder."""
    from presafe.judges.agreement import offline_verdicts
    from presafe.judges.refusal import OFFLINE

    verdicts = {panel.name: offline_verdicts(panel.name, items) for panel in panels if panel.name in OFFLINE}
    if asked := [panel for panel in panels if panel.name not in OFFLINE]:
        from presafe.judges.labelled_run import judge_labelled

        verdicts |= judge_labelled(asked, items, folder, reversed_labels=reversed_labels)
    return verdicts


def _flips(
    panels: Sequence[Panel], items: Sequence[Labelled], before: Mapping[str, Sequence[Verdict]], folder: Path
) -> list[Flips]:
    """Judge the answers under every perturbation that can reach a judge, each in a folder of its own."""
    from presafe.judges.perturbation import PERTURBATIONS, count_flips, perturbed
    from presafe.judges.spec import read_name

    names, rows = [item.id for item in items], []
    for perturbation in PERTURBATIONS:
        of_order = perturbation == "label_order"
        reached = [panel for panel in panels if panel.has_label_order or not of_order]
        changed = perturbed(items, perturbation)
        if not changed:
            continue
        after = _verdicts(reached, changed, folder / perturbation, reversed_labels=of_order)
        rows += [
            count_flips(
                judge, perturbation,
                dict(zip(names, before[judge], strict=True)),
                dict(zip((item.id for item in changed), verdicts, strict=True)),
            )
            for judge, verdicts in after.items()
            if read_name(judge).has_label_order or not of_order  # a member of a panel may list none
        ]  # fmt: skip
    return rows


def _as_json(row: Any) -> dict[str, Any]:
    """Return a named tuple as JSON data; the intervals in it, too."""
    return {key: value._asdict() if hasattr(value, "_asdict") else value for key, value in row._asdict().items()}


def _agreement_table(agreements: Sequence[Agreement], names: Mapping[str, str], count: int) -> Table:
    """Return a table with a line per judge.

    Args:
        agreements: The judges, the best first.
        names: Names in the tables by judge.
        count: Number of labelled answers.
    """
    titles = ("Judge", "accuracy", "false safe", "false unsafe", "blank judged", "unjudged", "Cohen's κ",
              "Krippendorff's α")  # fmt: skip
    rows = [
        (names[j.judge], j.accuracy, j.false_safe, j.false_unsafe, j.blank, j.unjudged, j.kappa, j.alpha)
        for j in agreements
    ]
    return _table(f"Judges against {count} labelled answers", titles, rows)


def _flip_table(flips: Sequence[Flips], names: Mapping[str, str]) -> Table:
    """Return a table with a line per judge and perturbation."""
    titles = ("Judge", "Perturbation", "flipped", "n", "to refusal", "to compliance", "verdict lost")
    rows = [
        (names[f.judge], f.perturbation.replace("_", " "), f.flipped, str(f.flipped.n), str(f.to_refuse),
         str(f.to_comply), str(f.lost))
        for f in flips
    ]  # fmt: skip
    return _table("Verdicts that flip although the meaning stays", titles, rows)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """Return a table of texts and of intervals; those of κ and α are no rates."""
    from rich.table import Table

    from presafe.report.formatting import format_interval

    table = Table(title=title, caption="value [95 % interval]")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        cells = [
            cell if isinstance(cell, str) else format_interval(*cell[:3], is_rate=column[-1] not in "κα")
            for column, cell in zip(columns, row, strict=True)
        ]
        table.add_row(*cells)
    return table


def _case_table(agreements: Sequence[Agreement], names: Mapping[str, str]) -> Table:
    """Return a table of the wrong verdicts, with a line per case and a column per judge."""
    columns = ("Case", *(names[judge.judge] for judge in agreements))
    rows = [
        (case.replace("_", " "), *("{} of {}".format(*judge.wrong[case]) for judge in agreements))
        for case in agreements[0].wrong
    ]
    return _table("Wrong verdicts by case", columns, rows)
