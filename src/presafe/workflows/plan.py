"""Plan a recipe before the first token: what it samples and trains, and what that costs."""

from __future__ import annotations

from presafe.config.engine import EngineSettings
from presafe.config.recipe import Recipe
from presafe.config.sources import QuerySource, SetSource, Source, SuiteSource
from presafe.errors import PromptError, RecipeError
from presafe.evaluation.suites import OWN, PUBLISHED, suite_names
from presafe.judges.spec import models_here
from presafe.models.place import judge_at_vllm
from presafe.planning.devices import Assumptions, assumptions, find_device
from presafe.planning.estimate import Answerer, Launcher, Plan, SamplingTask, Setup, plan
from presafe.planning.shapes import shape_of
from presafe.prompts.sets import load_source
from presafe.stages.respond import reads_answers, steered_methods, trains_thinking_off
from presafe.stages.systems import aligned_systems, evaluated_systems


def plan_recipe(recipe: Recipe, device: str, num_gpus: int, launcher: Launcher) -> Plan:
    """Estimate a recipe on a device; reads no data from the hub.

    Args:
        recipe: The recipe; its engine says how many GPUs sample side by side.
        device: Name of the GPU, also of those that sample elsewhere.
        num_gpus: GPUs that train together.
        launcher: How they share the work.

    Raises:
        RecipeError: the device is unknown, or the GPUs cannot share a step.
        PromptError: there is no suite of a name.
        ModelError: the model or its teacher is not supported.
    """
    if num_gpus < 1 or (recipe.align.accumulation % num_gpus and recipe.align.batch_size % num_gpus):
        raise RecipeError(
            f"{num_gpus} GPUs cannot share a step of {recipe.align.accumulation} passes of {recipe.align.batch_size}.",
            "Make align.accumulation or align.batch_size a multiple of their number.",
        )
    assumed = assumptions()
    setup = Setup(find_device(device), assumed, num_gpus, launcher, **_samplers(recipe.engine))
    tasks = sampling_tasks(recipe, assumed)
    return plan(recipe, shape_of(recipe.model.address), tasks, _refused_share(recipe, assumed), setup)


def vllm_starts(recipe: Recipe) -> int:
    """Return how often a run starts vLLM, at least.

    It is started for the model in two stages, for a teacher, for each aligned system, and for one judge.
    """
    if recipe.engine is None or recipe.engine.vllm is None:
        return 0
    base, teacher = 2, 1 if recipe.respond.teacher else 0
    judge = judge_at_vllm(models_here(recipe.evaluate.judge, recipe.evaluate.judge_thought)) is not None
    return base + teacher + len(aligned_systems(recipe)) + judge


def _samplers(engine: EngineSettings | None) -> dict[str, int]:
    """Return how many GPUs sample side by side; a running server counts as one."""
    if engine is None:
        return {}
    if engine.servers:
        return {"samplers": len(engine.servers)}
    gpus = engine.data_parallel * engine.tensor_parallel
    return {"samplers": gpus, "teacher_samplers": gpus, "split": engine.tensor_parallel}


def sampling_tasks(recipe: Recipe, assumed: Assumptions) -> list[SamplingTask]:
    """Return all prompts that a recipe has answered, stage by stage.

    Raises:
        PromptError: there is no suite of a name.
        ModelError: a teacher that is another model is not supported.
    """
    respond = recipe.respond
    queries = sum(_count(source, assumed) for source in respond.classifier_queries)
    harmful, harmless = _alignment_counts(recipe, assumed)
    teacher = Answerer(shape_of(respond.teacher.address), respond.teacher.dtype) if respond.teacher else None

    def task(name: str, num_prompts: int, max_tokens: int, answerer: Answerer | None = None) -> SamplingTask:
        return SamplingTask(name, num_prompts, max_tokens, respond.batch_size, respond.batch_tokens, answerer=answerer)

    tasks = [
        task("teacher, CoT off", queries, respond.teacher_max_tokens, teacher),
        task("traces", round(queries * recipe.signal.held_out), respond.max_tokens),
        task("own answers", harmless, respond.max_tokens),
    ]
    if reads_answers(recipe):
        tasks.append(task("teacher on alignment queries", harmless + harmful, respond.teacher_max_tokens, teacher))
    if trains_thinking_off(recipe):
        tasks.append(task("own answers, CoT off", harmless + harmful, respond.teacher_max_tokens))
    tasks += [task(f"refusals of {name}", harmful, respond.max_tokens) for name in steered_methods(recipe)]
    return tasks + _evaluation_tasks(recipe, assumed)


def _evaluation_tasks(recipe: Recipe, assumed: Assumptions) -> list[SamplingTask]:
    evaluate, num_systems = recipe.evaluate, len(evaluated_systems(recipe))
    return [
        SamplingTask(
            f"evaluate {name}, {num_systems} systems",
            num_systems * evaluate.samples * _count(source, assumed, name) * _times_asked(recipe, name, source),
            evaluate.max_tokens,
            evaluate.batch_size,
            evaluate.batch_tokens,
            guessed=_known_count(source, name) is None,
        )
        for name, source in ((name, _resolved(source)) for name, source in evaluate.suites.items())
    ]


def _resolved(source: Source) -> Source:
    """Return a source, and in place of a suite of the project's own the set that it is.

    Raises:
        PromptError: there is no suite of that name.
    """
    if not isinstance(source, SuiteSource):
        return source
    if source.suite not in suite_names():
        raise PromptError(f"no suite {source.suite!r}.", f"There are: {', '.join(suite_names())}.")
    if source.suite not in OWN:
        return source
    own = OWN[source.suite]
    return own if source.n is None else own.model_copy(update={"n": source.n})


def _times_asked(recipe: Recipe, name: str, source: Source) -> int:
    """Return how often a suite is asked: plainly and, if it is harmful, under each attack.

    Queries beyond the first of a search or a defense are not counted, nor that attacks make prompts longer.
    """
    expect = PUBLISHED[source.suite].expect if isinstance(source, SuiteSource) else _expect(source)
    return 1 + len(recipe.evaluate.attacks) if expect == "refuse" else 1


def _alignment_counts(recipe: Recipe, assumed: Assumptions) -> tuple[int, int]:
    """Return the numbers of harmful and of harmless alignment queries."""
    counts = [(_expect(source), _count(source, assumed)) for source in recipe.respond.alignment_queries]
    harmful = sum(count for expect, count in counts if expect == "refuse")
    return harmful, sum(count for _, count in counts) - harmful


def _refused_share(recipe: Recipe, assumed: Assumptions) -> float:
    """Return the share of the alignment queries whose target is a refusal."""
    harmful, harmless = _alignment_counts(recipe, assumed)
    return harmful / (harmful + harmless)


def _expect(source: QuerySource) -> str:
    """Return what is expected of the prompts of a source."""
    if isinstance(source, SetSource):
        return "refuse" if source.set == "harmful" else "comply"
    return source.expect


def _count(source: Source, assumed: Assumptions, suite: str | None = None) -> int:
    """Return the number of prompts of a source, assumed if only the hub or a file can tell."""
    known = _known_count(source, suite)
    return assumed.suite_prompts if known is None else known


def _known_count(source: Source, suite: str | None) -> int | None:
    """Return the number of prompts of a source, or None if only the hub or a file can tell."""
    if source.n is not None:
        return source.n
    if isinstance(source, SetSource):
        return len(load_source(source, 0))
    published = PUBLISHED.get(source.suite if isinstance(source, SuiteSource) else suite or "")
    return published.num_prompts if published else None
