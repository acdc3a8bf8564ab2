"""`presafe report`: rewrite the report of an evaluated run."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from presafe.cli.output import AsJson
from presafe.errors import RunError


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    png: Annotated[bool, typer.Option("--png", help="Also write the figures as PNG.")] = False,
    is_opened: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    others: Annotated[
        list[Path] | None,
        typer.Option(
            "--compare", metavar="OTHER", help="Compare with another run or measurement; the page links there."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rewrite a run's report, for example after an update of presafe."""
    from presafe.cli.finish import finish
    from presafe.runs.folder import locked
    from presafe.stages.report import check_evaluated, comparison_folder
    from presafe.stages.report import report as write
    from presafe.stages.run_folder import RunFolder
    from presafe.workflows.compare import compare_folders

    run = RunFolder.existing(folder)
    with locked(folder):
        check_evaluated(run)  # before the stage is timed
        for other in others or ():
            compare_folders([folder, other], comparison_folder(run, other))
        with run.working_on("report"):
            write(run, png=png)
    finish(run, as_json=as_json)
    if is_opened:
        open_page(folder / "report" / "report.html")


def open_page(page: Path) -> None:
    """Open a page in the user's browser.

    Raises:
        RunError: there is no browser.
    """
    if not webbrowser.open(page.absolute().as_uri()):
        raise RunError(f"found no browser to open {page}.", "Open it yourself.")
