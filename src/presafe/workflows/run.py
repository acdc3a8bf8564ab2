"""A whole run: every stage that is not done yet, in order.

Under a launcher, the first process does every stage and the others help it align (`runtime/launcher.py`). They meet
through the files of the run folder, like the stages themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

from presafe.config.recipe import Recipe
from presafe.models.address import need_weights
from presafe.runs.folder import locked
from presafe.runs.ownership import check_ownership
from presafe.runtime.launcher import is_main_process, launcher_hidden
from presafe.runtime.memory import free_memory
from presafe.runtime.progress import console, heading
from presafe.stages.run_folder import STAGES, RunFolder, Stage
from presafe.stages.systems import aligned_systems
from presafe.stages.workload import Workload


def run_stages(recipe: Recipe, out: Path, until: Stage = "report", workload: Workload | None = None) -> RunFolder:
    """Run every stage that is not done yet; each may also be a later session or another machine.

    Under a launcher every process calls it. All of them need the same folder.

    Args:
        recipe: The settings.
        out: The run folder; one made with the same recipe is continued.
        until: The last stage to run.
        workload: The recipe's prompts, where they are loaded already.

    Returns:
        The run folder.

    Raises:
        JudgeError: no such judge, one that cannot be asked, or one that none of the suites is for.
        PreSafeError: as the stages; what is done is kept.
    """
    if not is_main_process():
        return _help_align(RunFolder(out, recipe), until)
    if STAGES.index(until) >= STAGES.index("align") and aligned_systems(recipe):
        need_weights(
            recipe.model.address,
            "training an adapter",
            "Stop before it with --until signal, or train none with systems = [] in the recipe's [align].",
        )
    workload = workload or Workload(recipe)
    workload.check()
    if (chosen := (recipe.evaluate.judge, recipe.evaluate.judge_thought)) != (None, None):
        from presafe.judges.scorers import check_judges  # it brings Inspect with it

        check_judges(*chosen, [prompts[0].expect for prompts in workload.suites.values()])
    check_ownership(out, "recipe.json")
    with locked(out):
        run = RunFolder.open_for(out, recipe, workload)
        _check_logs(run, until)
        for number, stage in enumerate(STAGES[: STAGES.index(until) + 1], start=1):
            if run.is_done(stage):
                heading(f"{number} {stage}", ": done before")
                continue
            heading(f"{number} {stage}")
            with run.working_on(stage), nullcontext() if stage == "align" else launcher_hidden():
                _work_of(stage)(run)
            free_memory()
    return run


_LOGS: tuple[tuple[Stage, str], ...] = (("respond", "responses"), ("evaluate", "evaluation"))
"""Stages that sample, and where their logs lie."""


def _check_logs(run: RunFolder, until: Stage) -> None:
    """Set damaged logs of finished stages aside; these stages, and those after them, are due again.

    Raises:
        RunError: a log cannot be read or renamed.
    """
    for stage, folder in _LOGS:
        if run.is_done(stage) and STAGES.index(stage) <= STAGES.index(until):
            from presafe.models.logs import check_sample, log_files, set_damaged_aside  # it brings Inspect with it

            before = len(log_files(run.path / folder))
            if len(set_damaged_aside(run.path / folder, check_sample)) < before:
                run.make_due(stage)


def _work_of(stage: Stage) -> Callable[[RunFolder], None]:
    """A stage, loaded when it is reached: the stages bring torch, TRL and Inspect with them."""
    work: Callable[[RunFolder], None] = getattr(import_module(f"presafe.stages.{stage}"), stage)
    return work


def _help_align(run: RunFolder, until: Stage) -> RunFolder:
    """What a process after the first does: wait until there are signals, and align with the others.

    It waits as long as it takes. Should the first process fail, the launcher ends the others.
    """
    console.quiet = True
    if STAGES.index(until) >= STAGES.index("align"):
        while not run.is_done("signal"):
            time.sleep(1)
        if not run.is_done("align"):
            _work_of("align")(run)
    return run
