"""Where an aligned model begins to refuse: its adapter is scaled until few harmless queries are refused.

The queries are those to comply with among the classifier's: the model is not trained on them, nor measured.

alignment/<system>/operating_point.json     the scale, and what it does; written last
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from presafe.alignment.rows import refusal_start
from presafe.alignment.scale import find_scale, rescale
from presafe.internals.decision import decision_scores
from presafe.methods.registry import training_of
from presafe.models.adapters import with_adapter
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
"""Name of its file."""


def set_operating_points(run: RunFolder, for_each: ForEach) -> None:
    """Scale every trained adapter to the recipe's `align.over_refusal`, where it has one and that was not done yet."""
    settings, due = run.recipe.align, unscaled(run)
    if settings.over_refusal is None or not due:
        return
    decisions = [each for each in decisions_of(run).judged if each.query.expect == "comply"]
    queries = [each.query for each in decisions]
    if settings.over_refusal == "teacher":
        allowed = sum(each.refused for each in decisions)
    else:
        allowed = round(settings.over_refusal * len(queries))
    for_each(partial(_scale, run=run, queries=queries, allowed=min(allowed, len(queries) - 1)), due)


def _scale(system: System, *, run: RunFolder, queries: Sequence[Prompt], allowed: int) -> None:
    """Scale one adapter until it refuses no more than some of the queries."""
    from peft.helpers import rescale_adapter_scale

    recipe, settings, folder = run.recipe, run.recipe.align, system_folder(run, system)
    is_trusted = recipe.model.trust_remote_code
    renderer = load_renderer(
        recipe.model.address, recipe.model.family, recipe.model.tokenizer, trust_remote_code=is_trusted
    )
    start = refusal_start(renderer, settings.refusal_target, training_of(system.name))
    release_model()
    rescale(folder / "adapter", settings.lora_alpha)  # as trained, where a kill came between the scale and its record
    weights = load_weights(recipe.model.address, recipe.model.dtype, trust_remote_code=is_trusted)
    model = with_adapter(weights, folder / "adapter", recipe.model.address)
    loaded = LoadedModel(model.get_base_model(), renderer)
    refused: dict[float, int] = {}

    def weakest_logits(scale: float, among: Sequence[int]) -> list[float]:
        asked = [queries[each].text for each in among]
        with rescale_adapter_scale(model, scale), progress_bar(f"{folder.name} × {scale:.2f}", len(asked)) as bar:
            scores = decision_scores(loaded, asked, start, None, on_finished=bar.advance)
        logits = [score.weakest_logit for score in scores]
        refused[scale] = sum(logit > 0 for logit in logits)
        return logits

    found = find_scale(weakest_logits, len(queries), allowed, settings.max_scale)
    scale = 1.0 if found is None else found
    rescale(folder / "adapter", settings.lora_alpha * scale)
    point = OperatingPoint(scale=scale, refused_as_trained=refused[1.0], refused=refused[scale], n=len(queries))
    write_text(folder / OPERATING_POINT, point.model_dump_json(indent=2) + "\n")
    there = "as trained: no scale that is allowed gives as many" if found is None else f"at {scale:.2f} of its scale"
    console.print(
        f"  {folder.name}: refuses {point.refused} of {point.n} harmless queries, {there} "
        f"({point.refused_as_trained} as trained)"
    )
    free_memory()


def unscaled(run: RunFolder) -> list[System]:
    """Systems that the recipe wants scaled and that are not, trained or not."""
    if run.recipe.align.over_refusal is None:
        return []
    return [system for system in aligned_systems(run.recipe) if operating_point(run, system) is None]


def operating_point(run: RunFolder, system: System) -> OperatingPoint | None:
    """That of a system; None where its adapter is as it was trained, or there is none.

    Raises:
        RunError: its file is damaged.
    """
    file = system_folder(run, system) / OPERATING_POINT
    return read_record(file, OperatingPoint, hint=run.hint_to_redo("align")) if file.exists() else None
