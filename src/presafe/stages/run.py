"""A whole run: every stage that is not done yet, in order."""

from __future__ import annotations

import gc
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from presafe.models.address import need_weights
from presafe.progress import console
from presafe.recipe import Recipe
from presafe.run_folder import STAGES, RunFolder, Stage, locked
from presafe.stages.systems import aligned_systems, check_prompts


def run_stages(recipe: Recipe, out: Path, until: Stage = "report") -> RunFolder:
    """Run every stage that is not done yet; each may also be a later session or another machine.

    Args:
        recipe: The settings.
        out: The run folder; one made with the same recipe is continued.
        until: The last stage to run.

    Returns:
        The run folder.

    Raises:
        PresafeError: as the stages; what is done is kept.
    """
    if STAGES.index(until) >= STAGES.index("align") and aligned_systems(recipe):
        need_weights(
            recipe.model.address,
            "training an adapter",
            "Stop before it with --until signal, or train none with systems = [] in the recipe's [align].",
        )
    prompts_sha256 = check_prompts(recipe)
    with locked(out):
        run = RunFolder.open_for(out, recipe, prompts_sha256)
        for number, stage in enumerate(STAGES[: STAGES.index(until) + 1], start=1):
            if run.is_done(stage):
                console.print(f"[bold]{number} {stage}[/bold]: done before")
                continue
            console.print(f"[bold]{number} {stage}[/bold]")
            # Loaded when it is reached: the stages bring torch, TRL and Inspect with them.
            work: Callable[[RunFolder], None] = getattr(import_module(f"presafe.stages.{stage}"), stage)
            with run.working_on(stage):
                work(run)
            gc.collect()
    return run
