"""What the runs of a study have in common is made once: their run folders hold links into one store.

    shared/<key>/<path>     what lies at that path of every run folder for which all that decides it is the same

The key is the sha256 of those settings and prompts. A stage writes and reads through the link as if the folder were
its own, and finds what another run has done, whole or half done, as it would find its own after a kill.

A training is copied rather than linked: each run scales its adapter to an operating point of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from presafe.alignment.fit import CHECKPOINTS, HISTORY
from presafe.alignment.scale import rescale
from presafe.config.recipe import Recipe
from presafe.errors import PreSafeError
from presafe.runs.io import disk_error, read_record, write_text
from presafe.runs.manifest import made_by, sha256_of, sha256_of_prompts
from presafe.runs.ownership import TRAINED_BY
from presafe.stages.operating_point import OPERATING_POINT
from presafe.stages.respond import reads_answers, response_sets
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import aligned_systems, system_folder
from presafe.stages.workload import Workload
from presafe.study.records import TrainedBy


class Part(NamedTuple):
    """One path of a run folder, and everything that decides what will lie there."""

    path: str
    is_folder: bool
    decided_by: tuple[Any, ...]


def shared_parts(recipe: Recipe, workload: Workload) -> list[Part]:
    """The parts of a run folder that do not depend on what is trained.

    Raises:
        PromptError: as `load_source`.
    """
    # A setting that came later decides nothing at its default, and `aligned_thinking` nothing of the model as it came:
    # without it, what was made before it is still found.
    later = {"aligned_thinking", *(["judge_thought"] if recipe.evaluate.judge_thought is None else [])}
    with_answers = reads_answers(recipe)
    model, evaluate = recipe.model.model_dump(mode="json"), recipe.evaluate.model_dump(mode="json", exclude=later)
    asked = recipe.respond.model_dump(mode="json", exclude={"classifier_queries", "alignment_queries"})
    signal = recipe.signal.model_dump(mode="json", exclude=set() if with_answers else {"reads"})
    aligned = sha256_of_prompts([workload.alignment])
    decided = (model, asked, sha256_of_prompts([workload.classifier]))
    signals = (*decided, signal, aligned)
    vanilla = (model, evaluate, sha256_of_prompts(workload.suites.values()))
    return [
        Part("responses/teacher", True, decided),
        Part("responses/traces", True, (*decided, signal["held_out"], signal["seed"])),
        Part("responses/own", True, (model, asked, sha256_of_prompts([workload.harmless]))),
        *(
            Part(f"responses/{one.name}", True, (model, asked, aligned))
            for one in response_sets(recipe)
            if one.queries == "alignment"
        ),
        Part("signals", True, signals),
        Part("stages/signal", False, signals),  # its mark: a classifier cannot tell that it is done
        Part("evaluation/vanilla-on", True, vanilla),
        Part("evaluation/vanilla-off", True, vanilla),
        # with which token a refusal starts depends on how it is written
        Part("evaluation/positions/vanilla-on.jsonl", False, (*vanilla, recipe.align.refusal_target)),
    ]


def link_shared(recipe: Recipe, workload: Workload, folder: Path, store: Path) -> None:
    """Put the links into a run folder, new or begun; what they point to may not be there yet.

    Raises:
        PromptError: as `shared_parts`.
        RunError: a folder cannot be written.
    """
    for part in shared_parts(recipe, workload):
        link, target = folder / part.path, store / sha256_of(part.decided_by)[:16] / part.path
        try:
            (target if part.is_folder else target.parent).mkdir(parents=True, exist_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=part.is_folder)
        except OSError as error:
            raise disk_error(link, error) from error


def take_training(recipe: Recipe, prompts_sha256: str, folder: Path, others: Sequence[Path]) -> None:
    """Copy what another run has trained with the same settings and prompts into a run folder that is not begun.

    Only how it is scaled and measured may differ. What made it and what it cost comes with it (`trained_by`).

    Args:
        recipe: The run's settings.
        prompts_sha256: Of all its prompts, those that it is measured on included, as `Workload.sha256`.
        folder: The run folder; one that is begun is left as it is.
        others: Run folders, whole or not; what is none of one is passed over.

    Raises:
        RunError: a folder cannot be written.
    """
    run = RunFolder(folder, recipe)
    if run.recipe_path.exists():
        return
    shutil.rmtree(folder / "alignment", ignore_errors=True)  # a kill may have left a part of one
    found = next((there for other in others if (there := _trains_alike(other, run, prompts_sha256))), None)
    if found is None:
        return
    for system in aligned_systems(recipe):
        to, source = system_folder(run, system), system_folder(found, system)
        try:
            shutil.copytree(source, to, ignore=shutil.ignore_patterns(CHECKPOINTS, OPERATING_POINT))
            rescale(to / "adapter", recipe.align.lora_alpha)
            write_text(to / TRAINED_BY, (trained_by(source) or _maker(found)).model_dump_json(indent=2) + "\n")
        except OSError as error:
            shutil.rmtree(to, ignore_errors=True)
            if (source / HISTORY).exists():
                raise disk_error(to, error) from error
            # it was deleted meanwhile: this run trains it


def trained_by(folder: Path) -> TrainedBy | None:
    """What made the training in a system's folder; None where its own run did."""
    file = folder / TRAINED_BY
    return read_record(file, TrainedBy) if file.exists() else None


def _maker(run: RunFolder) -> TrainedBy:
    return TrainedBy(run=run.path.name, made_by=made_by(run.manifest()), training_s=run.timings().get("align"))


def _trains_alike(other: Path, run: RunFolder, prompts_sha256: str) -> RunFolder | None:
    """Another run, where it has trained all that a run is to train, just so."""
    try:
        there = RunFolder.existing(other)
        same = there.manifest()["prompts_sha256"] == prompts_sha256
    except PreSafeError:
        return None
    trained = all((system_folder(there, each) / HISTORY).exists() for each in aligned_systems(run.recipe))
    alike = same and trained and there.is_done("align") and _training(there.recipe) == _training(run.recipe)
    return there if alike else None


def _training(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide what is trained."""
    return recipe.model_dump(
        mode="json", exclude={"name": True, "evaluate": True, "align": {"over_refusal", "max_scale"}}
    )
