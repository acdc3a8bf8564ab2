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
    as_json: AsJson = False,
) -> None:
    """Rewrite a run's report, for example after an update of presafe."""
    from presafe.cli.finish import finish
    from presafe.runs.folder import locked
    from presafe.stages.report import check_evaluated
    from presafe.stages.report import report as write
    from presafe.stages.run_folder import RunFolder

    run = RunFolder.existing(folder)
    with locked(folder):
        check_evaluated(run)  # before the stage is timed
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
