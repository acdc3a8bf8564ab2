"""Write the model card beside every adapter of a run: `alignment/<system>/adapter/README.md`.

The last line of a card has a checksum of the lines before it. A card that its author changed is kept, and the new one
is written beside it.
"""

from __future__ import annotations

import os
from pathlib import Path

from presafe.config.recipe import Recipe
from presafe.config.sources import HubSource, SetSource
from presafe.errors import RunError
from presafe.methods.registry import training_of
from presafe.planning.commands import max_lora_rank
from presafe.report.card import AdapterFacts, CardFacts, DataSource, model_card
from presafe.report.data import ReportData
from presafe.report.public import public_address
from presafe.runs.io import read_json, write_text
from presafe.runs.manifest import sha256_of
from presafe.runtime.progress import console
from presafe.runtime.reading import read_text
from presafe.stages.operating_point import operating_point
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import System, aligned_systems, system_folder

CARD = "README.md"
"""Name of a model card, as the Hugging Face hub looks for it."""
NEW_CARD = "README.new.md"
"""Name of a card where the other one was changed by its author."""
_CONFIG = "adapter_config.json"


def write_cards(run: RunFolder, data: ReportData) -> list[Path]:
    """Write the card of every adapter of an evaluated run.

    Args:
        run: The run.
        data: Its report.

    Returns:
        The paths of the cards.

    Raises:
        RunError: a file of the run is damaged or cannot be written.
    """
    paths = []
    for system in aligned_systems(run.recipe):
        folder = system_folder(run, system) / "adapter"
        if (folder / _CONFIG).is_file():  # a run is reported also where its weights were deleted
            path = next((folder / name for name in (CARD, NEW_CARD) if _is_unchanged(folder / name)), None)
            if path is None:
                console.print(f"  {folder / CARD} and {NEW_CARD} beside it are kept: no new card was written")
                continue
            if path.name == NEW_CARD:
                console.print(f"  {folder / CARD} is kept: it is not as it was written. The new card is {NEW_CARD}")
            text = model_card(data, _facts(run, system, folder)).rstrip("\n") + "\n"
            write_text(path, text + _checksum(text))
            paths.append(path)
    return paths


def _checksum(text: str) -> str:
    """Return the last line of a card."""
    return f"<!-- presafe wrote this card: {sha256_of(text)[:16]} -->\n"


def _is_unchanged(path: Path) -> bool:
    """Return whether a card is as it was written, or is not there; one that cannot be read is not."""
    if not os.path.lexists(path):
        return True
    try:
        text = read_text(path, RunError).rstrip("\n") + "\n"
    except RunError:
        return False
    above = text[: text[:-1].rfind("\n") + 1]
    return text == above + _checksum(above)


def _facts(run: RunFolder, system: System, folder: Path) -> CardFacts:
    assert system.seed is not None  # an aligned system has one
    adapter = adapter_facts(folder)
    return CardFacts(
        system=system.name,
        seed=system.seed,
        adapter=adapter,
        sources=tuple(data_sources(run.recipe, system.name)),
        max_lora_rank=max_lora_rank(adapter.rank),
        point=operating_point(run, system),
    )


def adapter_facts(folder: Path) -> AdapterFacts:
    """Return the shape of an adapter, as its `adapter_config.json` states it: a method may have its own.

    Raises:
        RunError: the file cannot be read, or is not that of a LoRA adapter.
    """
    config = read_json(folder / _CONFIG)
    try:
        targets, blocks = config["target_modules"], config.get("layers_to_transform")
        return AdapterFacts(
            rank=int(config["r"]),
            alpha=float(config["lora_alpha"]),
            targets=(targets,) if isinstance(targets, str) else tuple(targets),
            blocks=None if blocks is None else (blocks,) if isinstance(blocks, int) else tuple(blocks),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{folder / _CONFIG} is not that of a LoRA adapter ({error}).", "Train it again.") from error


def data_sources(recipe: Recipe, method: str) -> list[DataSource]:
    """Return what a system learned from: the queries of the teacher's decisions, those of the alignment, and any file.

    Args:
        recipe: The run's settings.
        method: Name of the system's method.
    """
    named = [
        *(("teacher's decisions", source) for source in recipe.respond.classifier_queries),
        *(("alignment", source) for source in recipe.respond.alignment_queries),
    ]
    sources = []
    for used_for, source in named:
        license, hub, origin = "not stated: a file of the run's author", None, source.origin
        if isinstance(source, SetSource):
            license, origin = "Apache-2.0", f"presafe's set {origin}"
        elif isinstance(source, HubSource):
            license, hub = source.license, None if Path(source.hub).exists() else source.hub
            origin = f"{public_address(source.hub)} ({source.split})"
        else:
            origin = source.file.name
        what = origin if source.n is None else f"{origin}, {source.n} prompts"
        sources.append(DataSource(used_for, what, license, hub))
    if training_of(method).needs_data:
        file = recipe.align.data[method].file.name
        sources.append(DataSource("safe responses", file, "not stated: a file of the run's author"))
    return sources
