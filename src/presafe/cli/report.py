"""`presafe report`: rewrite the report of an evaluated run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presafe.cli.output import AsJson


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")], as_json: AsJson = False
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
            write(run)
    finish(run, as_json=as_json)
