"""Stage 1: sample the teacher with CoT off, and the model's own answers, which it should keep.

    responses/<set>/    one folder of logs per response set; `_SETS` says which there are, and who answers what

A method that learns from the model's own refusals (ThinkSafe) has a set of its own, named after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from presafe.config.recipe import Recipe
from presafe.judges.scorers import refusal_strings
from presafe.methods.registry import trained, training_of
from presafe.models.sampling import Sampler, load_responses, sample_responses
from presafe.records import Prompt, Response, Thinking
from presafe.runtime.progress import console
from presafe.signals.classifier import DecisionSplit, split_decisions
from presafe.stages.run_folder import RunFolder


def reads_answers(recipe: Recipe) -> bool:
    """Return whether the classifier also reads the teacher's answers, so that the alignment queries need some."""
    return recipe.signal.reads == "query_and_answer"


def trains_thinking_off(recipe: Recipe) -> bool:
    """Return whether rows with CoT off are trained on, so that the model's own answers with CoT off are needed."""
    return recipe.align.thinking_off_share > 0


@dataclass(frozen=True)
class ResponseSet:
    """One set of answers that stage 1 samples."""

    name: str
    """Its folder in `responses/`."""
    queries: Literal["classifier", "traces", "harmless", "alignment", "harmful"]
    """Which queries are asked; "traces" are the decisions kept to measure the classifier."""
    thinking: Thinking
    by_teacher: bool = False
    """Whether the recipe's teacher answers, not the model itself."""
    is_needed: Callable[[Recipe], bool] = lambda recipe: True
    instruction: str = ""
    """Text put before each query."""


_SETS = (
    ResponseSet("teacher", "classifier", "off", by_teacher=True),  # its verdicts are the teacher's decisions
    ResponseSet("traces", "traces", "on"),  # the classifier is also measured on thoughts
    ResponseSet("own", "harmless", "on"),  # what the model should keep
    ResponseSet("decided", "alignment", "off", by_teacher=True, is_needed=reads_answers),
    ResponseSet("own_off", "alignment", "off", is_needed=trains_thinking_off),
)


def response_sets(recipe: Recipe) -> list[ResponseSet]:
    """Return the sets that a recipe needs, in the order in which they are sampled."""
    return [*(one for one in _SETS if one.is_needed(recipe)), *map(_steered_set, steered_methods(recipe))]


def steered_methods(recipe: Recipe) -> list[str]:
    """Return the methods of a recipe that learn from the model's own refusals."""
    return [name for name in trained(recipe.align.systems) if training_of(name).steering]


def _steered_set(method: str) -> ResponseSet:
    return ResponseSet(method, "harmful", "on", instruction=f"{training_of(method).steering}\n\n")


def _set_named(name: str) -> ResponseSet:
    return next((one for one in _SETS if one.name == name), None) or _steered_set(name)


class Decision(NamedTuple):
    """What the teacher decided about one query, and the answer that shows it."""

    query: Prompt
    answer: str
    refused: bool


class Decisions(NamedTuple):
    """The teacher's decisions that have a verdict, and which of them are kept to measure the classifier."""

    judged: list[Decision]
    split: DecisionSplit
    num_unjudged: int


def respond(run: RunFolder) -> None:
    """Sample every response set."""
    settings = run.recipe.respond
    for one in response_sets(run.recipe):
        responses = sample_responses(
            one.name,
            {one.name: _queries(run, one)},
            {one.name: [refusal_strings()]},
            Sampler(
                model=(settings.teacher if one.by_teacher else None) or run.recipe.model,
                thinking=one.thinking,
                adapter=None,
                batch_size=settings.batch_size,
                batch_tokens=settings.batch_tokens,
                max_tokens=settings.teacher_max_tokens if one.thinking == "off" else settings.max_tokens,
                seed=settings.seed,
            ),
            run.path / "responses" / one.name,
        )[one.name]
        num_cut = sum(response.truncated for response in responses)
        num_unjudged = sum(response.verdict == "unjudged" for response in responses)
        console.print(
            f"  {one.name}: {len(responses)} answers, {num_cut} thoughts truncated, {num_unjudged} without a verdict"
        )


def responses_of(run: RunFolder, name: str) -> list[Response]:
    """Return the responses of one set, in the order of its queries.

    Args:
        run: The run.
        name: Name of the set: teacher, traces, own, decided, own_off, or a method's.

    Raises:
        RunError: the stage has not finished.
    """
    one = _set_named(name)
    return load_responses(run.path / "responses" / name, one.thinking, {name: _queries(run, one)})[name]


def decisions_of(run: RunFolder) -> Decisions:
    """Return the teacher's decisions, split the same way every time.

    Raises:
        RunError: the teacher has not been sampled.
        SignalError: the teacher decided everything alike.
    """
    pairs = list(zip(run.workload.classifier, responses_of(run, "teacher"), strict=True))
    judged = [
        Decision(query, response.answer, response.verdict == "refuse")
        for query, response in pairs
        if response.verdict != "unjudged"
    ]
    split = split_decisions(
        [decision.refused for decision in judged], run.recipe.signal.held_out, run.recipe.signal.seed
    )
    return Decisions(judged, split, len(pairs) - len(judged))


def _queries(run: RunFolder, one: ResponseSet) -> Sequence[Prompt]:
    """Return the queries of a set; those of the traces are known once the teacher has decided."""
    if one.queries == "traces":
        decisions = decisions_of(run)
        return [decisions.judged[index].query for index in decisions.split.held_out]
    queries: Sequence[Prompt] = getattr(run.workload, one.queries)
    if not one.instruction:
        return queries
    return [query.model_copy(update={"text": one.instruction + query.text}) for query in queries]
