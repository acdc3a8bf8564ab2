"""Write the model card beside every adapter of a run: `alignment/<system>/adapter/README.md`."""

from __future__ import annotations

from pathlib import Path

from presafe.config.recipe import Recipe
from presafe.config.sources import HubSource, SetSource
from presafe.methods.registry import training_of
from presafe.planning.commands import max_lora_rank
from presafe.report.card import CardFacts, DataSource, model_card
from presafe.report.data import ReportData
from presafe.runs.io import write_text
from presafe.stages.operating_point import operating_point
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import System, aligned_systems, system_folder

CARD = "README.md"
"""Name of a model card, as the Hugging Face hub looks for it."""


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
        path = system_folder(run, system) / "adapter" / CARD
        write_text(path, model_card(data, _facts(run, system)))
        paths.append(path)
    return paths


def _facts(run: RunFolder, system: System) -> CardFacts:
    recipe = run.recipe
    assert system.seed is not None  # an aligned system has one
    return CardFacts(
        system=system.name,
        seed=system.seed,
        sources=tuple(data_sources(recipe, system.name)),
        max_lora_rank=max_lora_rank(recipe.align.lora_rank),
        point=operating_point(run, system),
    )


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
        license, hub = "not stated: a file of the run's author", None
        if isinstance(source, SetSource):
            license = "Apache-2.0"
        elif isinstance(source, HubSource):
            license, hub = source.license, None if Path(source.hub).exists() else source.hub
        what = f"presafe's set {source.origin}" if isinstance(source, SetSource) else source.origin
        sources.append(DataSource(used_for, what if source.n is None else f"{what}, {source.n} prompts", license, hub))
    if training_of(method).needs_data:
        file = str(recipe.align.data[method].file)
        sources.append(DataSource("safe responses", file, "not stated: a file of the run's author"))
    return sources
