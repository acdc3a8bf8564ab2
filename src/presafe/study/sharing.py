"""Share files between the runs of a study: their run folders hold links into one store, so that work is done once.

    shared/<key>/<path>     the file or folder at that path, for all runs with the same settings and prompts behind it

The key is the sha256 of those settings and prompts. A stage reads and writes through the link as if the folder were
its own. It finds the finished or half-finished work of another run, as it would find its own after a kill.

A training is copied rather than linked, because each run scales its adapter to its own operating point.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from presafe.alignment.fit import CHECKPOINTS, HISTORY
from presafe.alignment.scale import rescale, trained_alpha
from presafe.config.recipe import Recipe
from presafe.errors import PreSafeError
from presafe.evaluation.attacked import attacks_decision, defended, file_name
from presafe.methods.registry import training_of
from presafe.runs.io import disk_error, read_record, write_text
from presafe.runs.manifest import made_by, sha256_of, sha256_of_prompts
from presafe.runs.ownership import TRAINED_BY
from presafe.stages.operating_point import OPERATING_POINT
from presafe.stages.respond import reads_answers, response_sets
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import aligned_systems, system_folder
from presafe.stages.workload import Workload
from presafe.study.records import TrainedBy


class SharedPath(NamedTuple):
    """One path of a run folder that runs can share, and the settings and prompts that decide its content."""

    path: str
    is_folder: bool
    decided_by: tuple[Any, ...]


def shared_paths(recipe: Recipe, workload: Workload) -> list[SharedPath]:
    """Return the paths of a run folder whose content does not depend on what is trained.

    Args:
        recipe: The run's settings.
        workload: The run's prompts.

    Raises:
        PromptError: a source of prompts cannot be read.
    """
    # `aligned_thinking` does not concern the model as it came, and a setting that is newer than a store is not in the
    # store's keys: both are left out, so that what an older presafe made is still found.
    left_out = {"aligned_thinking"} if recipe.evaluate.judge_thought else {"aligned_thinking", "judge_thought"}
    model = recipe.model.model_dump(mode="json")
    evaluate = recipe.evaluate.model_dump(mode="json", exclude=left_out)
    respond = recipe.respond.model_dump(mode="json", exclude={"classifier_queries", "alignment_queries"})
    signal = recipe.signal.model_dump(mode="json", exclude=set() if reads_answers(recipe) else {"reads"})
    alignment = sha256_of_prompts([workload.alignment])
    teacher = (model, respond, sha256_of_prompts([workload.classifier]))
    own = (model, respond, sha256_of_prompts([workload.harmless]))
    traces = (*teacher, signal["held_out"], signal["seed"])
    signals = (*teacher, signal, alignment)
    # a search that attacks the decision reads how the recipe's refusals start
    searched = [recipe.align.refusal_target] if attacks_decision(recipe.evaluate.attacks) else []
    vanilla = (model, evaluate, sha256_of_prompts(workload.suites.values()), *searched)
    guarded = [file_name(defended("vanilla", defense)) for defense in recipe.evaluate.defenses]
    on_alignment = [response_set.name for response_set in response_sets(recipe) if response_set.queries == "alignment"]
    return [
        SharedPath("responses/teacher", True, teacher),
        SharedPath("responses/traces", True, traces),
        SharedPath("responses/own", True, own),
        *(SharedPath(f"responses/{name}", True, (model, respond, alignment)) for name in on_alignment),
        SharedPath("signals", True, signals),
        SharedPath("stages/signal", False, signals),  # the mark: the classifier's files do not show that it is done
        SharedPath("evaluation/vanilla-on", True, vanilla),
        SharedPath("evaluation/vanilla-off", True, vanilla),
        *(SharedPath(f"evaluation/{name}-on", True, vanilla) for name in guarded),
        # the form of refusals decides which token starts one
        SharedPath("evaluation/positions/vanilla-on.jsonl", False, (*vanilla, recipe.align.refusal_target)),
    ]


def link_shared(recipe: Recipe, workload: Workload, folder: Path, store: Path) -> None:
    """Put links to the shared paths into a run folder, new or not; their targets need not exist yet.

    Args:
        recipe: The run's settings.
        workload: The run's prompts.
        folder: The run folder.
        store: The folder to which the links lead.

    Raises:
        PromptError: as `shared_paths`.
        RunError: a folder cannot be written.
    """
    for shared in shared_paths(recipe, workload):
        link, target = folder / shared.path, store / sha256_of(shared.decided_by)[:16] / shared.path
        try:
            (target if shared.is_folder else target.parent).mkdir(parents=True, exist_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=shared.is_folder)
        except OSError as error:
            raise disk_error(link, error) from error


def take_training(recipe: Recipe, prompts_sha256: str, folder: Path, others: Sequence[Path]) -> None:
    """Copy the training of another run with the same settings and prompts into a new run folder.

    Only the scale and the measurement may differ. The copy names the run that trained, and its cost (`trained_by`).

    Args:
        recipe: The run's settings.
        prompts_sha256: Hash of all its prompts, as `Workload.sha256`.
        folder: The run folder; an existing run is left as it is.
        others: Folders of other runs, finished or not; a folder without a run is skipped.

    Raises:
        RunError: a folder cannot be written.
    """
    run = RunFolder(folder, recipe)
    if run.recipe_path.exists():
        return
    shutil.rmtree(folder / "alignment", ignore_errors=True)  # a killed copy may have left a half
    matches = (match for other in others if (match := _run_with_same_training(other, run, prompts_sha256)))
    match = next(matches, None)
    if match is None:
        return
    for system in aligned_systems(recipe):
        target, source = system_folder(run, system), system_folder(match, system)
        try:
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(CHECKPOINTS, OPERATING_POINT))
            rescale(target / "adapter", trained_alpha(recipe.align, training_of(system.name).adapter))
            write_text(target / TRAINED_BY, (trained_by(source) or _maker(match)).model_dump_json(indent=2) + "\n")
        except OSError as error:
            shutil.rmtree(target, ignore_errors=True)
            if (source / HISTORY).exists():
                raise disk_error(target, error) from error
            # the source was deleted meanwhile: this run trains the system itself


def trained_by(folder: Path) -> TrainedBy | None:
    """Return the run that made the training in a system's folder; None if it was the folder's own run.

    Args:
        folder: Folder of a system in a run folder.

    Raises:
        RunError: the record is damaged.
    """
    file = folder / TRAINED_BY
    return read_record(file, TrainedBy) if file.exists() else None


def _maker(run: RunFolder) -> TrainedBy:
    """Return the record of a run that trains its own systems."""
    return TrainedBy(run=run.path.name, made_by=made_by(run.manifest()), training_s=run.timings().get("align"))


def _run_with_same_training(folder: Path, run: RunFolder, prompts_sha256: str) -> RunFolder | None:
    """Return the run in a folder if it has trained all systems of `run` with the same settings and prompts."""
    try:
        other = RunFolder.existing(folder)
        is_same = other.manifest()["prompts_sha256"] == prompts_sha256
    except PreSafeError:
        return None
    is_trained = all((system_folder(other, system) / HISTORY).exists() for system in aligned_systems(run.recipe))
    is_match = (
        is_same
        and is_trained
        and other.is_done("align")
        and _training_settings(other.recipe) == _training_settings(run.recipe)
    )
    return other if is_match else None


def _training_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that decide what is trained."""
    return recipe.model_dump(
        mode="json", exclude={"name": True, "evaluate": True, "align": {"over_refusal", "max_scale"}}
    )
