"""`presafe run`: a recipe from the first stage to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presafe.cli import options
from presafe.cli.output import AsJson
from presafe.errors import RecipeError


def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A .toml file, or the name of a shipped recipe.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=options.folder, metavar="PATH", help="Run folder; else runs/<recipe>."),
    ] = None,
    until: Annotated[
        str, typer.Option("--until", help="Last stage: respond, signal, align, evaluate, report.")
    ] = "report",
    engine: options.Engine = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe; the same command again resumes."""
    from presafe.cli.finish import finish
    from presafe.config.recipe import load_recipe
    from presafe.runtime.launcher import is_main_process
    from presafe.stages.run_folder import STAGES
    from presafe.workflows.run import run_stages

    if until not in STAGES:
        raise RecipeError(f"no stage {until!r}.", f"There are: {', '.join(STAGES)}.")
    folder = out or Path("runs") / options.short_name(recipe)
    settings = options.sampled_at(load_recipe(recipe), engine)
    done = run_stages(settings, folder, until)
    if is_main_process():
        finish(done, as_json=as_json)
