"""The systems of a recipe, and their folders in a run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from presafe.alignment.fit import HEAD_FIT, HISTORY
from presafe.config.recipe import Recipe
from presafe.errors import RunError
from presafe.evaluation.attacked import defended, file_name
from presafe.methods.registry import is_prefill, trained
from presafe.records import HeadFit, HistoryPoint, Thinking
from presafe.runs.folder import read_records
from presafe.runs.io import read_record
from presafe.stages.run_folder import RunFolder

DECIDED = ("refuse", "comply")
"""Values of `Prompt.expect` for prompts that a model refuses or complies with; the other prompts are problems."""


class System(NamedTuple):
    """A system that is evaluated. `seed` is None for the model as it came, with or without a prefilled thought."""

    name: str
    """Name in results; behind a defense, SYSTEM+DEFENSE."""
    seed: int | None
    thinking: Thinking

    @property
    def method(self) -> str:
        """Return the name without a defense."""
        return self.name.partition("+")[0]

    @property
    def defense(self) -> str | None:
        """Return the label of the defense around it, or None."""
        return self.name.partition("+")[2] or None


def aligned_systems(recipe: Recipe) -> list[System]:
    """Return the systems that a recipe trains, one per method and seed."""
    return [System(name, seed, "on") for name in trained(recipe.align.systems) for seed in recipe.align.seeds]


def evaluated_systems(recipe: Recipe) -> list[System]:
    """Return the systems that a recipe evaluates.

    These are the model as it came in both modes, prefilled thoughts, every aligned system in the recipe's modes, and
    each of them again, CoT on, behind each defense.
    """
    prefilled = [System(name, None, "on") for name in recipe.align.systems if is_prefill(name)]
    aligned = [
        system._replace(thinking=thinking)
        for system in aligned_systems(recipe)
        for thinking in recipe.evaluate.aligned_thinking
    ]
    plain = [System("vanilla", None, "on"), System("vanilla", None, "off"), *prefilled, *aligned]
    guarded = [
        system._replace(name=defended(system.name, defense))
        for defense in recipe.evaluate.defenses
        for system in plain
        if system.thinking == "on"
    ]
    return [*plain, *guarded]


def system_folder(run: RunFolder, system: System) -> Path:
    """Return `alignment/<system>/` for the recipe's first seed, `alignment/<system>-seed<k>/` for the others."""
    is_first = system.seed == run.recipe.align.seeds[0]
    return run.path / "alignment" / (system.method if is_first else f"{system.method}-seed{system.seed}")


def history_of(run: RunFolder, system: System) -> list[HistoryPoint]:
    """Return the training curve of an aligned system.

    Args:
        run: The run.
        system: A trained system.

    Raises:
        RunError: it cannot be read, or its steps are not 1, 2, 3, ….
    """
    file, hint = system_folder(run, system) / HISTORY, run.hint_to_redo("align")
    points = read_records(file, HistoryPoint, hint)
    if not points or [point.step for point in points] != list(range(1, len(points) + 1)):
        raise RunError(f"{file} is damaged: its steps are not 1, 2, 3, ….", hint)
    return points


def head_fit_of(run: RunFolder, system: System) -> HeadFit | None:
    """Return how well a system's head learned p′; None without a head, or if an older presafe trained it.

    Args:
        run: The run.
        system: Any system.

    Raises:
        RunError: the file is damaged.
    """
    file = system_folder(run, system) / HEAD_FIT
    return read_record(file, HeadFit, hint=run.hint_to_redo("align")) if file.exists() else None


def adapter_of(run: RunFolder, system: System) -> Path | None:
    """Return the adapter's folder; None for the model as it came."""
    return None if system.seed is None else system_folder(run, system) / "adapter"


def label_of(run: RunFolder, system: System) -> str:
    """Return the folder name of a system's logs, which is also the label of its progress bar."""
    name = system.method if system.seed is None else system_folder(run, system).name
    return file_name(f"{name}{f'+{system.defense}' if system.defense else ''}-{system.thinking}")
