"""`presafe demo`: the shipped recipe of SmolThink-135M, from nothing to a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option("--out", help="Run folder.")] = Path("runs/demo"),
    full: Annotated[bool, typer.Option("--full", help="Also the random-label control, over three seeds.")] = False,
) -> None:
    """The whole method on SmolThink-135M: about ten minutes on two CPU cores."""
    from presafe.cli.finish import finish
    from presafe.models.weights import minilm_folder, smollm2_folder
    from presafe.recipe import load_recipe
    from presafe.stages.run import run_stages

    smollm2_folder()
    minilm_folder()
    finish(run_stages(load_recipe("smolthink-135m-full" if full else "smolthink-135m"), out))
