"""What a recipe would sample, train and take, before the first token."""

from __future__ import annotations

from presafe.errors import RecipeError
from presafe.evaluation.suites import PUBLISHED
from presafe.planning.devices import Assumptions, assumptions, find_device
from presafe.planning.estimate import Answerer, Launcher, Plan, Sampling, plan
from presafe.planning.shapes import shape_of
from presafe.prompts.sets import load_source
from presafe.recipe import Recipe, Source
from presafe.stages.respond import reads_answers, steered_methods, trains_thinking_off
from presafe.stages.systems import evaluated_systems


def plan_recipe(recipe: Recipe, device: str, num_gpus: int, launcher: Launcher) -> Plan:
    """Estimate a recipe on a device; reads no data from the hub.

    Raises:
        RecipeError: no such device, or GPUs that cannot share a step.
        ModelError: no plan for the model or its teacher.
    """
    if num_gpus < 1 or (recipe.align.accumulation % num_gpus and recipe.align.batch_size % num_gpus):
        raise RecipeError(
            f"{num_gpus} GPUs cannot share a step of {recipe.align.accumulation} passes of {recipe.align.batch_size}.",
            "Make align.accumulation or align.batch_size a multiple of their number.",
        )
    assumed = assumptions()
    return plan(
        recipe,
        shape_of(recipe.model.address),
        samplings(recipe, assumed),
        _refused_share(recipe, assumed),
        find_device(device),
        assumed,
        num_gpus=num_gpus,
        launcher=launcher,
    )


def samplings(recipe: Recipe, assumed: Assumptions) -> list[Sampling]:
    """Everything that a recipe has answered, stage by stage.

    Raises:
        ModelError: no plan for a teacher that is another model.
    """
    respond, evaluate = recipe.respond, recipe.evaluate
    queries = sum(_count(source, assumed) for source in respond.classifier_queries)
    own = sum(_count(source, assumed) for source in respond.alignment_queries if _expect(source) != "refuse")
    harmful = sum(_count(source, assumed) for source in respond.alignment_queries if _expect(source) == "refuse")
    systems = len(evaluated_systems(recipe))
    together = (respond.batch_size, respond.batch_tokens)
    teacher = Answerer(shape_of(respond.teacher.address), respond.teacher.dtype) if respond.teacher else None
    suites = [
        Sampling(
            f"evaluate {name}, {systems} systems",
            systems * evaluate.samples * _count(source, assumed, name),
            evaluate.max_tokens,
            evaluate.batch_size,
            evaluate.batch_tokens,
            guessed=_known(source, name) is None,
        )
        for name, source in evaluate.suites.items()
    ]
    return [
        Sampling("teacher, CoT off", queries, respond.teacher_max_tokens, *together, by=teacher),
        Sampling("traces", round(queries * recipe.signal.held_out), respond.max_tokens, *together),
        Sampling("own answers", own, respond.max_tokens, *together),
        *(
            [Sampling("teacher on alignment queries", own + harmful, respond.teacher_max_tokens, *together, by=teacher)]
            if reads_answers(recipe)
            else []
        ),
        *(
            [Sampling("own answers, CoT off", own + harmful, respond.teacher_max_tokens, *together)]
            if trains_thinking_off(recipe)
            else []
        ),
        *(Sampling(f"refusals of {name}", harmful, respond.max_tokens, *together) for name in steered_methods(recipe)),
        *suites,
    ]


def _refused_share(recipe: Recipe, assumed: Assumptions) -> float:
    """Share of the alignment queries whose target is a refusal."""
    counts = [(_expect(source), _count(source, assumed)) for source in recipe.respond.alignment_queries]
    return sum(count for expect, count in counts if expect == "refuse") / sum(count for _, count in counts)


def _expect(source: Source) -> str:
    return source.expect or ("refuse" if source.set == "harmful" else "comply")


def _count(source: Source, assumed: Assumptions, suite: str | None = None) -> int:
    known = _known(source, suite)
    return assumed.suite_prompts if known is None else known


def _known(source: Source, suite: str | None) -> int | None:
    """How many prompts a source gives; None where only the hub or a file would say."""
    if source.n is not None:
        return source.n
    if source.set is not None:
        return len(load_source(source, 0))
    published = PUBLISHED.get(source.suite or suite or "")
    return published.num_prompts if published else None
