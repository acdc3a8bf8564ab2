"""What a recipe means: its queries, its systems, and where they lie in the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from presafe.alignment.fit import HISTORY
from presafe.config.files import published_folder
from presafe.config.recipe import Recipe, Source
from presafe.errors import PromptError, RunError
from presafe.evaluation.suites import origin_of, prompts_of
from presafe.methods.registry import is_prefill, trained, training_of
from presafe.prompts.overlap import fold
from presafe.prompts.sets import load_sources
from presafe.prompts.traces import SafetyTrace, load_traces
from presafe.records import HistoryPoint, Prompt, Thinking
from presafe.runs.folder import RunFolder, read_records
from presafe.runs.manifest import sha256_of_prompts

DECIDED = ("refuse", "comply")
"""What is expected of prompts that a model decides to answer or not; problems are there to be solved."""


class System(NamedTuple):
    """One thing that is evaluated. `seed` is None for the model as it came, also where its thought is prefilled."""

    name: str
    seed: int | None
    thinking: Thinking


def classifier_queries(recipe: Recipe) -> list[Prompt]:
    """Queries that the teacher decides."""
    return _queries(recipe, recipe.respond.classifier_queries)


def alignment_queries(recipe: Recipe) -> list[Prompt]:
    """Queries that the model is aligned on."""
    return _queries(recipe, recipe.respond.alignment_queries)


def harmless_queries(recipe: Recipe) -> list[Prompt]:
    """Those of them that the model is to answer as before."""
    return [prompt for prompt in alignment_queries(recipe) if prompt.expect != "refuse"]


def evaluation_suites(recipe: Recipe) -> dict[str, list[Prompt]]:
    """Held-out prompts by suite."""
    return {name: prompts_of(source, recipe.evaluate.seed) for name, source in recipe.evaluate.suites.items()}


def suite_origins(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Where the published ones among the suites come from, by the recipe's names for them."""
    named = {name: source.suite for name, source in recipe.evaluate.suites.items()}
    return {name: origin_of(suite, published_folder()) for name, suite in named.items() if suite is not None}


def safety_data(recipe: Recipe, method: str) -> list[SafetyTrace]:
    """The rows of a method's file, but for those whose question stands in an evaluation suite, case and punctuation
    folded: published sets share some.

    Raises:
        PromptError: the file cannot be read, or nothing is left of it.
    """
    asked = {fold(prompt.text) for prompts in evaluation_suites(recipe).values() for prompt in prompts}
    found = load_traces(recipe.align.data[method])
    kept = [trace for trace in found if fold(trace.prompt.text) not in asked]
    if not kept:
        raise PromptError(f"every question of {recipe.align.data[method].file} stands in an evaluation suite.")
    return kept


def steered_queries(recipe: Recipe, method: str) -> list[Prompt]:
    """The harmful alignment queries, each after the method's instruction to refuse; ids as without it."""
    instruction = training_of(method).steering
    return [
        prompt.model_copy(update={"text": f"{instruction}\n\n{prompt.text}"})
        for prompt in alignment_queries(recipe)
        if prompt.expect == "refuse"
    ]


def _queries(recipe: Recipe, sources: Sequence[Source]) -> list[Prompt]:
    """Queries of several sources; what the hub gives is nowhere near an evaluation suite."""
    from_hub = any(source.hub is not None for source in sources)
    suites = evaluation_suites(recipe) if from_hub else {}
    held_out = [prompt.text for prompts in suites.values() for prompt in prompts]
    return load_sources(sources, recipe.respond.seed, held_out)


def check_prompts(recipe: Recipe) -> str:
    """Fail before the first token where prompts cannot be read, or the model would be aligned on a held-out one.

    Returns:
        The sha256 of all prompts, with their ids.

    Raises:
        PromptError: as `load_sources` and `safety_data`; the alignment queries are all harmful or all harmless, or
            none of the classifier's is to be complied with where `align.over_refusal` is a share of them; or a query
            stands in an evaluation suite, case and punctuation folded.
    """
    queries = [classifier_queries(recipe), alignment_queries(recipe)]
    harmful = {prompt.expect == "refuse" for prompt in queries[1]}
    if len(harmful) == 1:
        there, missing = ("harmful", "harmless") if harmful.pop() else ("harmless", "harmful")
        raise PromptError(
            f"every alignment query is {there}.", f"Add {missing} ones to respond.alignment_queries: it takes both."
        )
    if recipe.align.over_refusal is not None and all(prompt.expect != "comply" for prompt in queries[0]):
        raise PromptError(
            "align.over_refusal is a share of the classifier's queries to comply with, and there is none.",
            "Add some to respond.classifier_queries, or leave align.over_refusal out.",
        )
    suites = evaluation_suites(recipe)
    asked = {fold(prompt.text) for prompts in queries for prompt in prompts}
    for name, prompts in suites.items():
        shared = [prompt.id for prompt in prompts if fold(prompt.text) in asked]
        if shared:
            raise PromptError(
                f"suite {name} holds {len(shared)} prompts that the model is aligned on (first: {shared[0]}).",
                "Use another split or file for one of the two.",
            )
    data = [[trace.prompt for trace in safety_data(recipe, method)] for method in recipe.align.data]
    return sha256_of_prompts([*queries, *suites.values(), *data])


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
