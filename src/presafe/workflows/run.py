"""A whole run: every stage that is not done yet, in order.

Under a launcher, the first process runs every stage, and the others take part in the alignment
(`runtime/launcher.py`). The processes communicate through the files of the run folder, as the stages do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

from presafe.config.recipe import Recipe
from presafe.errors import RunError
from presafe.models.address import need_weights, need_weights_for
from presafe.runs.folder import locked
from presafe.runs.ownership import check_ownership
from presafe.runtime.launcher import is_main_process, launcher_hidden
from presafe.runtime.memory import free_memory
from presafe.runtime.progress import console, heading
from presafe.stages.run_folder import STAGES, RunFolder, Stage
from presafe.stages.systems import aligned_systems
from presafe.stages.workload import Workload


def run_stages(recipe: Recipe, out: Path, until: Stage = "report", workload: Workload | None = None) -> RunFolder:
    """Run every stage that is not done yet. A later session, or another machine, may run the next stages.

    Under a launcher every process calls it, with the same folder.

    Args:
        recipe: The settings.
        out: The run folder; a folder made with the same recipe is resumed.
        until: The last stage to run.
        workload: The recipe's prompts; None loads them.

    Returns:
        The run folder.

    Raises:
        RecipeError: a tracker is not installed, or a callback cannot be made.
        JudgeError: no such judge, a judge that cannot be asked, or a judge that fits none of the suites.
        PreSafeError: as the stages; finished work is kept.
    """
    if not is_main_process():
        return _help_align(RunFolder(out, recipe), until)
    if STAGES.index(until) >= STAGES.index("align") and aligned_systems(recipe):
        need_weights(
            recipe.model.address,
            "training an adapter",
            'Stop before it with `until = "signal"`, or train none with systems = [] in the recipe\'s [align].',
        )
    need_weights_for(recipe.model.address, recipe.evaluate.attacks, recipe.evaluate.defenses)
    workload = workload or Workload(recipe)
    workload.check()
    if STAGES.index(until) >= STAGES.index("align"):
        _check_training(recipe)
    judge, judge_thought = recipe.evaluate.judge, recipe.evaluate.judge_thought
    if judge is not None or judge_thought is not None:
        from presafe.judges.scorers import check_judges  # loads Inspect

        check_judges(judge, judge_thought, [prompts[0].expect for prompts in workload.suites.values()])
    check_ownership(out, "recipe.json")
    with locked(out):
        run = RunFolder.open_for(out, recipe, workload)
        _check_logs(run, until)
        _check_report(run, until)
        for number, stage in enumerate(STAGES[: STAGES.index(until) + 1], start=1):
            if run.is_done(stage):
                heading(f"{number} {stage}", ": done before")
                continue
            heading(f"{number} {stage}")
            with run.working_on(stage), nullcontext() if stage == "align" else launcher_hidden():
                _work_of(stage)(run)
            free_memory()
    return run


def _check_training(recipe: Recipe) -> None:
    """Check, before the first token, what a training loads of other packages.

    Raises:
        RecipeError: a tracker is not installed, or a callback cannot be made.
    """
    from presafe.alignment.callbacks import own_callbacks
    from presafe.alignment.trackers import check_trackers

    check_trackers(recipe.align.report_to)
    own_callbacks(recipe.align.callbacks)


_LOGS: tuple[tuple[Stage, str], ...] = (("respond", "responses"), ("evaluate", "evaluation"))
"""Stages that sample, and the folders of their logs."""


def _check_logs(run: RunFolder, until: Stage) -> None:
    """Set damaged logs of finished stages aside, and make these stages and all later ones due again.

    Raises:
        RunError: a log cannot be read or renamed.
    """
    for stage, folder in _LOGS:
        if run.is_done(stage) and STAGES.index(stage) <= STAGES.index(until):
            from presafe.models.logs import check_sample, log_files, set_damaged_aside  # loads Inspect

            before = len(log_files(run.path / folder))
            if len(set_damaged_aside(run.path / folder, check_sample)) < before:
                run.make_due(stage)


def _check_report(run: RunFolder, until: Stage) -> None:
    """Make the report of a finished run due again if it is missing, damaged, or has other rows than the run.

    Raises:
        RunError: the folder cannot be written.
    """
    if until != "report" or run.not_done():
        return
    from presafe.stages.report import need_report  # loads matplotlib

    try:
        need_report(run)
    except RunError as error:
        console.print(f"  {error.problem} The report is written again.", soft_wrap=True)
        run.make_due("report")


def _work_of(stage: Stage) -> Callable[[RunFolder], None]:
    """Return a stage's function; it is imported only now, because the stages load torch, TRL and Inspect."""
    work: Callable[[RunFolder], None] = getattr(import_module(f"presafe.stages.{stage}"), stage)
    return work


def _help_align(run: RunFolder, until: Stage) -> RunFolder:
    """Wait until the first process has made the signals, then align with it.

    There is no time limit: if the first process fails, the launcher ends the others.
    """
    console.quiet = True
    if STAGES.index(until) >= STAGES.index("align"):
        while not run.is_done("signal"):
            time.sleep(1)
        if not run.is_done("align"):
            _work_of("align")(run)
    return run
