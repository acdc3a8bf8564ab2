"""What a recipe means: its queries, its systems, and where they lie in the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from presafe.alignment.fit import HISTORY
from presafe.config.recipe import Recipe
from presafe.errors import RunError
from presafe.methods.registry import is_prefill, trained
from presafe.records import HistoryPoint, Thinking
from presafe.runs.folder import read_records
from presafe.stages.run_folder import RunFolder

DECIDED = ("refuse", "comply")
"""What is expected of prompts that a model decides to answer or not; problems are there to be solved."""


class System(NamedTuple):
    """One thing that is evaluated. `seed` is None for the model as it came, also where its thought is prefilled."""

    name: str
    seed: int | None
    thinking: Thinking


def aligned_systems(recipe: Recipe) -> list[System]:
    """Every system the recipe trains."""
    return [System(name, seed, "on") for name in trained(recipe.align.systems) for seed in recipe.align.seeds]


def evaluated_systems(recipe: Recipe) -> list[System]:
    """The model as it came, in both modes; with its thought prefilled; every aligned system in the recipe's modes."""
    prefilled = [System(name, None, "on") for name in recipe.align.systems if is_prefill(name)]
    aligned = [
        system._replace(thinking=thinking)
        for system in aligned_systems(recipe)
        for thinking in recipe.evaluate.aligned_thinking
    ]
    return [System("vanilla", None, "on"), System("vanilla", None, "off"), *prefilled, *aligned]


def system_folder(run: RunFolder, system: System) -> Path:
    """`alignment/<system>/` for the recipe's first seed, `alignment/<system>-seed<k>/` for the others."""
    first = system.seed == run.recipe.align.seeds[0]
    return run.path / "alignment" / (system.name if first else f"{system.name}-seed{system.seed}")


def history_of(run: RunFolder, system: System) -> list[HistoryPoint]:
    """Return the training curve of an aligned system.

    Raises:
        RunError: it cannot be read, or its steps are not 1, 2 and so forth.
    """
    file, hint = system_folder(run, system) / HISTORY, run.hint_to_redo("align")
    points = read_records(file, HistoryPoint, hint)
    if not points or [point.step for point in points] != list(range(1, len(points) + 1)):
        raise RunError(f"{file} is damaged: its steps are not 1, 2 and so forth.", hint)
    return points


def adapter_of(run: RunFolder, system: System) -> Path | None:
    """The adapter's folder; None for the model as it came."""
    return None if system.seed is None else system_folder(run, system) / "adapter"


def label_of(run: RunFolder, system: System) -> str:
    """Folder name of a system's logs, and label of its progress bar."""
    name = system.name if system.seed is None else system_folder(run, system).name
    return f"{name}-{system.thinking}"
