"""Stage 1: sample the teacher with CoT off, and the model's own answers, which it is to keep.

responses/teacher   classifier queries, CoT off, by the teacher: their verdicts are the teacher's decisions
responses/traces    those kept to measure the classifier, CoT on: it is also measured on their thoughts
responses/own       harmless alignment queries, CoT on: what the model is to keep
responses/decided   alignment queries, CoT off, by the teacher: for a classifier that also reads its answers
responses/own_off   alignment queries, CoT off: what the model is to keep there (`align.thinking_off_share`)
responses/<method>  harmful alignment queries after the method's instruction to refuse, CoT on (ThinkSafe)
"""

from __future__ import annotations

from typing import NamedTuple

from presafe.config.recipe import Recipe
from presafe.judges.scorers import refusal_strings
from presafe.methods.registry import trained, training_of
from presafe.models.sampling import Sampler, load_responses, sample_responses
from presafe.records import Prompt, Response, Thinking
from presafe.runs.folder import RunFolder
from presafe.runtime.progress import console
from presafe.signals.classifier import DecisionSplit, split_decisions
from presafe.stages.systems import alignment_queries, classifier_queries, harmless_queries, steered_queries

_PARTS = ("teacher", "traces", "own")
_BY_TEACHER = ("teacher", "decided")
_THINKING_OFF = (*_BY_TEACHER, "own_off")


class Decision(NamedTuple):
    """What the teacher decided about one query, and the answer that says so."""

    query: Prompt
    answer: str
    refused: bool


class Decisions(NamedTuple):
    """The teacher's decisions, those with a verdict, and which are kept to measure with."""

    judged: list[Decision]
    split: DecisionSplit
    num_unjudged: int


def respond(run: RunFolder) -> None:
    """Sample every part."""
    settings = run.recipe.respond
    for part in (*_PARTS, *of_aligned(run.recipe), *steered_methods(run.recipe)):
        thinking = _thinking(part)
        said = sample_responses(
            part,
            {part: queries_of(run, part)},
            {part: [refusal_strings()]},
            Sampler(
                model=(settings.teacher if part in _BY_TEACHER else None) or run.recipe.model,
                thinking=thinking,
                adapter=None,
                batch_size=settings.batch_size,
                batch_tokens=settings.batch_tokens,
                max_tokens=settings.teacher_max_tokens if thinking == "off" else settings.max_tokens,
                seed=settings.seed,
            ),
            run.path / "responses" / part,
        )[part]
        cut = sum(response.truncated for response in said)
        unjudged = sum(response.verdict == "unjudged" for response in said)
        console.print(f"  {part}: {len(said)} answers, {cut} thoughts truncated, {unjudged} without a verdict")


def steered_methods(recipe: Recipe) -> list[str]:
    """The methods of a recipe that learn from the model's own refusals."""
    return [name for name in trained(recipe.align.systems) if training_of(name).steering]


def reads_answers(recipe: Recipe) -> bool:
    """Whether the classifier reads the teacher's answers, so that those to the alignment queries are needed, too."""
    return recipe.signal.reads == "query_and_answer"


def trains_thinking_off(recipe: Recipe) -> bool:
    """Whether rows with CoT off are trained on, so that the model's own answers then are needed."""
    return recipe.align.thinking_off_share > 0


def of_aligned(recipe: Recipe) -> list[str]:
    """The parts in which all alignment queries are answered with CoT off, where the recipe needs them."""
    needed = {"decided": reads_answers(recipe), "own_off": trains_thinking_off(recipe)}
    return [part for part, is_needed in needed.items() if is_needed]


def _thinking(part: str) -> Thinking:
    return "off" if part in _THINKING_OFF else "on"


def queries_of(run: RunFolder, part: str) -> list[Prompt]:
    """The queries of one part: teacher, traces, own, decided, own_off, or a method's name.

    Those of the traces are known once the teacher has decided.
    """
    if part == "traces":
        decisions = decisions_of(run)
        return [decisions.judged[index].query for index in decisions.split.held_out]
    of = {
        "teacher": classifier_queries,
        "own": harmless_queries,
        "decided": alignment_queries,
        "own_off": alignment_queries,
    }
    return of[part](run.recipe) if part in of else steered_queries(run.recipe, part)


def responses_of(run: RunFolder, part: str) -> list[Response]:
    """What was said in one part, in the order of `queries_of`.

    Raises:
        RunError: the stage has not finished.
    """
    queries = {part: queries_of(run, part)}
    return load_responses(run.path / "responses" / part, _thinking(part), queries)[part]


def decisions_of(run: RunFolder) -> Decisions:
    """The teacher's decisions, split the same way every time.

    Raises:
        RunError: the teacher has not been sampled.
        SignalError: it decided everything alike.
    """
    pairs = list(zip(queries_of(run, "teacher"), responses_of(run, "teacher"), strict=True))
    judged = [
        Decision(query, response.answer, response.verdict == "refuse")
        for query, response in pairs
        if response.verdict != "unjudged"
    ]
    split = split_decisions([each.refused for each in judged], run.recipe.signal.held_out, run.recipe.signal.seed)
    return Decisions(judged, split, len(pairs) - len(judged))
