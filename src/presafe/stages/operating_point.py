"""Operating points: each adapter is scaled until the model refuses a given number of harmless queries.

The queries are the classifier's queries to comply with: the model is neither trained nor measured on them. Each scale
is merged into the weights first, because the merged model is what is evaluated.

alignment/<system>/operating_point.json     the scale, and how many queries are refused at it; written last
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from presafe.alignment.rows import refusal_start
from presafe.alignment.scale import find_scale, rescale, trained_alpha
from presafe.internals.decision import decision_scores
from presafe.methods.registry import training_of
from presafe.models.adapters import merged_at, untie, with_adapter
from presafe.models.loading import LoadedModel, load_renderer, load_weights, release_model
from presafe.records import OperatingPoint, Prompt
from presafe.runs.io import read_record, write_text
from presafe.runtime.memory import free_memory
from presafe.runtime.progress import console, progress_bar
from presafe.runtime.workers import ForEach
from presafe.stages.respond import decisions_of
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import System, aligned_systems, system_folder

OPERATING_POINT = "operating_point.json"
"""Name of the file in a system's folder."""


def set_operating_points(run: RunFolder, for_each: ForEach) -> None:
    """Scale every trained adapter to the recipe's `align.over_refusal`; skip those that are scaled.

    Args:
        run: The run; its systems are trained.
        for_each: Calls a function for each item, several at a time.
    """
    settings, due = run.recipe.align, unscaled(run)
    if settings.over_refusal is None or not due:
        return
    decisions = [decision for decision in decisions_of(run).judged if decision.query.expect == "comply"]
    queries = [decision.query for decision in decisions]
    if settings.over_refusal == "teacher":
        allowed = sum(decision.refused for decision in decisions)
    else:
        allowed = round(settings.over_refusal * len(queries))
    for_each(partial(_scale, run=run, queries=queries, allowed=min(allowed, len(queries) - 1)), due)


def _scale(system: System, *, run: RunFolder, queries: Sequence[Prompt], allowed: int) -> None:
    """Scale one adapter until the model refuses at most `allowed` of the queries."""
    recipe, settings, folder = run.recipe, run.recipe.align, system_folder(run, system)
    is_trusted = recipe.model.trust_remote_code
    renderer = load_renderer(
        recipe.model.address, recipe.model.family, recipe.model.tokenizer, trust_remote_code=is_trusted
    )
    start = refusal_start(renderer, settings.refusal_target, training_of(system.name))
    release_model()
    alpha = trained_alpha(settings, training_of(system.name).adapter)
    rescale(folder / "adapter", alpha)  # as trained: a kill may have come before the scale was recorded
    weights = load_weights(recipe.model.address, recipe.model.dtype, trust_remote_code=is_trusted)
    model = with_adapter(weights, folder / "adapter", recipe.model.address)
    untie(model.get_base_model())
    loaded = LoadedModel(model.get_base_model(), renderer)
    refused: dict[float, int] = {}

    def weakest_logits(scale: float, among: Sequence[int]) -> list[float]:
        texts = [queries[index].text for index in among]
        with merged_at(model, scale), progress_bar(f"{folder.name} × {scale:.2f}", len(texts)) as bar:
            scores = decision_scores(loaded, texts, start, None, on_finished=bar.advance)
        logits = [score.weakest_logit for score in scores]
        refused[scale] = sum(logit > 0 for logit in logits)
        return logits

    found_scale = find_scale(weakest_logits, len(queries), allowed, settings.max_scale)
    scale = 1.0 if found_scale is None else found_scale
    rescale(folder / "adapter", alpha * scale)
    point = OperatingPoint(scale=scale, refused_as_trained=refused[1.0], refused=refused[scale], n=len(queries))
    write_text(folder / OPERATING_POINT, point.model_dump_json(indent=2) + "\n")
    how = "as trained: no allowed scale reaches that number" if found_scale is None else f"at {scale:.2f} of its scale"
    console.print(
        f"  {folder.name}: refuses {point.refused} of {point.n} harmless queries, {how} "
        f"({point.refused_as_trained} as trained)"
    )
    free_memory()


def unscaled(run: RunFolder) -> list[System]:
    """Return the systems that the recipe scales and that have no operating point yet, trained or not."""
    if run.recipe.align.over_refusal is None:
        return []
    return [system for system in aligned_systems(run.recipe) if operating_point(run, system) is None]


def operating_point(run: RunFolder, system: System) -> OperatingPoint | None:
    """Return a system's operating point, or None if its adapter was never rescaled.

    Args:
        run: The run.
        system: Any system; one without an adapter has no operating point.

    Raises:
        RunError: its file is damaged.
    """
    file = system_folder(run, system) / OPERATING_POINT
    return read_record(file, OperatingPoint, hint=run.hint_to_redo("align")) if file.exists() else None
