"""Stage 1: sample the teacher with CoT off, and the model's own answers, which it should keep.

    responses/<set>/    one folder of logs per response set; `_SETS` lists the sets, their queries and who answers

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
    """Which queries are asked; "traces" are the queries of the decisions kept to measure the classifier."""
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
    return [
        *(response_set for response_set in _SETS if response_set.is_needed(recipe)),
        *map(_steered_set, steered_methods(recipe)),
    ]


def steered_methods(recipe: Recipe) -> list[str]:
    """Return the methods of a recipe that learn from the model's own refusals."""
    return [name for name in trained(recipe.align.systems) if training_of(name).steering]


def _steered_set(method: str) -> ResponseSet:
    """Return the set of a method that learns from the model's own refusals."""
    return ResponseSet(method, "harmful", "on", instruction=f"{training_of(method).steering}\n\n")


def _set_named(name: str) -> ResponseSet:
    """Return the set of a name; a name that is not in the table is a method's."""
    named = {response_set.name: response_set for response_set in _SETS}
    return named[name] if name in named else _steered_set(name)


class Decision(NamedTuple):
    """The teacher's decision about one query, and the answer that shows it."""

    query: Prompt
    answer: str
    refused: bool


class Decisions(NamedTuple):
    """The teacher's decisions that have a verdict, and which of them are kept to measure the classifier."""

    judged: list[Decision]
    split: DecisionSplit
    num_unjudged: int


def respond(run: RunFolder) -> None:
    """Sample every response set.

    Args:
        run: The run.

    Raises:
        SignalError: the teacher's decisions are all the same.
        ModelError: a model cannot be loaded, or a server does not answer.
        RunError: the folder cannot be written.
    """
    settings = run.recipe.respond
    for response_set in response_sets(run.recipe):
        name = response_set.name
        responses = sample_responses(
            name,
            {name: _queries(run, response_set)},
            {name: [refusal_strings()]},
            Sampler(
                model=(settings.teacher if response_set.by_teacher else None) or run.recipe.model,
                thinking=response_set.thinking,
                adapter=None,
                batch_size=settings.batch_size,
                batch_tokens=settings.batch_tokens,
                max_tokens=settings.teacher_max_tokens if response_set.thinking == "off" else settings.max_tokens,
                seed=settings.seed,
                place=run.place,
            ),
            run.path / "responses" / name,
        )[name]
        num_truncated = sum(response.truncated for response in responses)
        num_unjudged = sum(response.verdict == "unjudged" for response in responses)
        console.print(
            f"  {name}: {len(responses)} answers, {num_truncated} thoughts truncated, {num_unjudged} without a verdict"
        )


def responses_of(run: RunFolder, name: str) -> list[Response]:
    """Return the responses of one set, in the order of its queries.

    Args:
        run: The run.
        name: Name of the set: teacher, traces, own, decided, own_off, or a method's.

    Raises:
        RunError: the stage has not finished.
    """
    response_set = _set_named(name)
    folder, queries = run.path / "responses" / name, _queries(run, response_set)
    return load_responses(folder, response_set.thinking, {name: queries})[name]


def decisions_of(run: RunFolder) -> Decisions:
    """Return the teacher's decisions; their split depends on the recipe's seed only.

    Args:
        run: The run; the teacher is sampled.

    Raises:
        RunError: the teacher has not been sampled.
        SignalError: the teacher's decisions are all the same.
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


def _queries(run: RunFolder, response_set: ResponseSet) -> Sequence[Prompt]:
    """Return the queries of a set; those of the traces are known once the teacher has decided."""
    if response_set.queries == "traces":
        decisions = decisions_of(run)
        return [decisions.judged[index].query for index in decisions.split.held_out]
    queries: Sequence[Prompt] = getattr(run.workload, response_set.queries)
    if not response_set.instruction:
        return queries
    return [query.model_copy(update={"text": response_set.instruction + query.text}) for query in queries]
