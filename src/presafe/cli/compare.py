"""`presafe compare`: paired differences between measured systems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presafe.cli import options
from presafe.cli.output import AsJson, print_report


def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs or measurements.")],
    against: Annotated[
        str | None, typer.Option("--against", help="System to compare with, e.g. sft; else the first.")
    ] = None,
    as_json: AsJson = False,
    out: options.Out = None,
) -> None:
    """Compare the systems of one or more runs or measurements, prompt by prompt."""
    from presafe.report.results import differences_table, summary_table
    from presafe.workflows.compare import compare_folders

    folder = out or options.folder_for("compare", folders[0].name, *folders, against)
    data = compare_folders(folders, folder, against=against)
    print_report(data, folder / "report.html", summary_table(data), differences_table(data), as_json=as_json)
