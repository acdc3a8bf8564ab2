"""`presafe look`: what the hidden states of a run's systems encode, before and after alignment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presafe.cli.output import AsJson


def look(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of an evaluated run.")],
    limit: Annotated[int, typer.Option("--limit", min=2, help="Most queries per class, and prompts per suite.")] = 200,
    layer: Annotated[
        int | None, typer.Option("--layer", min=1, help="Layer of the plane; else the layer that the head reads.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look inside an evaluated run: add probes, directions and a plane by layer, CoT on and off, to its report."""
    from presafe.cli.finish import finish
    from presafe.runs.folder import locked, timed
    from presafe.stages.report import check_evaluated
    from presafe.stages.report import report as write
    from presafe.stages.run_folder import RunFolder
    from presafe.workflows.internals import look as look_inside

    run = RunFolder.existing(folder)
    with locked(folder):
        check_evaluated(run)
        with timed(folder, "look"):
            look_inside(run, limit=limit, layer=layer)
        with run.working_on("report"):
            write(run)
    finish(run, as_json=as_json)
