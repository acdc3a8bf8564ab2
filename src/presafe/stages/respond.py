"""Stage 1: sample the teacher with CoT off, and the model's own answers with CoT on.

responses/teacher   classifier queries, CoT off: their verdicts are the teacher's decisions
responses/traces    those kept to measure the classifier, CoT on: it is also measured on their thoughts
responses/own       harmless alignment queries, CoT on: what the model is to keep
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from presafe.judges.scorers import refusal_strings
from presafe.models.sampling import Sampler, load_responses, sample_responses
from presafe.progress import console
from presafe.records import Prompt, Response, Thinking
from presafe.run_folder import RunFolder
from presafe.signals.classifier import DecisionSplit, split_decisions
from presafe.stages.systems import alignment_queries, classifier_queries

Part = Literal["teacher", "traces", "own"]

_THINKING: dict[Part, Thinking] = {"teacher": "off", "traces": "on", "own": "on"}


class Decisions(NamedTuple):
    """What the teacher decided: judged queries, whether it refused each, and which are kept to measure with."""

    queries: list[Prompt]
    refused: list[bool]
    split: DecisionSplit
    num_unjudged: int


def respond(run: RunFolder) -> None:
    """Sample all three parts."""
    settings = run.recipe.respond
    for part, thinking in _THINKING.items():
        said = sample_responses(
            part,
            {part: queries_of(run, part)},
            {part: refusal_strings()},
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


def queries_of(run: RunFolder, part: Part) -> list[Prompt]:
    """The queries of one part; those of the traces are known once the teacher has decided."""
    if part == "own":
        return [prompt for prompt in alignment_queries(run.recipe) if prompt.expect != "refuse"]
    if part == "teacher":
        return classifier_queries(run.recipe)
    decisions = decisions_of(run)
    return [decisions.queries[index] for index in decisions.split.held_out]


def responses_of(run: RunFolder, part: Part) -> list[Response]:
    """What was said in one part, in the order of `queries_of`.

    Raises:
        RunError: the stage has not finished.
    """
    queries: dict[str, list[Prompt]] = {part: queries_of(run, part)}
    return load_responses(run.path / "responses" / part, _THINKING[part], queries)[part]


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
