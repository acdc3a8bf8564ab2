"""Stage 1: sample the teacher with CoT off, and the model's own answers with CoT on.

responses/teacher   classifier queries, CoT off: their verdicts are the teacher's decisions
responses/traces    those kept to measure the classifier, CoT on: it is also measured on their thoughts
responses/own       harmless alignment queries, CoT on: what the model is to keep
responses/<method>  harmful alignment queries after the method's instruction to refuse, CoT on (ThinkSafe)
"""

from __future__ import annotations

from typing import NamedTuple

from presafe.judges.scorers import refusal_strings
from presafe.methods.registry import trained, training_of
from presafe.models.sampling import Sampler, load_responses, sample_responses
from presafe.progress import console
from presafe.recipe import Recipe
from presafe.records import Prompt, Response, Thinking
from presafe.run_folder import RunFolder
from presafe.signals.classifier import DecisionSplit, split_decisions
from presafe.stages.systems import classifier_queries, harmless_queries, steered_queries

_PARTS = ("teacher", "traces", "own")


class Decisions(NamedTuple):
    """What the teacher decided: judged queries, whether it refused each, and which are kept to measure with."""

    queries: list[Prompt]
    refused: list[bool]
    split: DecisionSplit
    num_unjudged: int


def respond(run: RunFolder) -> None:
    """Sample every part."""
    settings = run.recipe.respond
    for part in (*_PARTS, *steered_methods(run.recipe)):
        thinking = _thinking(part)
        said = sample_responses(
            part,
            {part: queries_of(run, part)},
            {part: [refusal_strings()]},
            Sampler(
                model=(settings.teacher if part == "teacher" else None) or run.recipe.model,
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


def _thinking(part: str) -> Thinking:
    return "off" if part == "teacher" else "on"


def queries_of(run: RunFolder, part: str) -> list[Prompt]:
    """The queries of one part: teacher, traces, own, or a method's name.

    Those of the traces are known once the teacher has decided.
    """
    if part not in _PARTS:
        return steered_queries(run.recipe, part)
    if part == "own":
        return harmless_queries(run.recipe)
    if part == "teacher":
        return classifier_queries(run.recipe)
    decisions = decisions_of(run)
    return [decisions.queries[index] for index in decisions.split.held_out]


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
    judged = [(query, response) for query, response in pairs if response.verdict != "unjudged"]
    refused = [response.verdict == "refuse" for _, response in judged]
    split = split_decisions(refused, run.recipe.signal.held_out, run.recipe.signal.seed)
    return Decisions([query for query, _ in judged], refused, split, len(pairs) - len(judged))
