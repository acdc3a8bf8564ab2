"""`presafe demo`: the shipped recipe of SmolThink-135M, from the first stage to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presafe.cli import options
from presafe.cli.output import AsJson


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", parser=options.folder, metavar="PATH", help="Run folder; else runs/demo or runs/demo-full."
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Also the random-label control, over three seeds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole method on SmolThink-135M: 10 to 15 minutes on two CPU cores."""
    from presafe.cli.finish import finish
    from presafe.config.recipe import load_recipe
    from presafe.models.weights import minilm_folder, smollm2_folder
    from presafe.workflows.run import run_stages

    smollm2_folder()
    minilm_folder()
    recipe = load_recipe("smolthink-135m-full" if full else "smolthink-135m")
    finish(run_stages(recipe, out or Path("runs") / ("demo-full" if full else "demo")), as_json=as_json)
