"""`presafe report`: write the report of an evaluated run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Write a run's report again, for example after an update of presafe."""
    from presafe.cli.finish import finish
    from presafe.runs.folder import locked
    from presafe.stages.report import check_evaluated
    from presafe.stages.report import report as write
    from presafe.stages.run_folder import RunFolder

    run = RunFolder.existing(folder)
    with locked(folder):
        check_evaluated(run)  # before any time is noted
        with run.working_on("report"):
            write(run)
    finish(run)
