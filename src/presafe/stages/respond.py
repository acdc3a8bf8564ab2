"""Stage 1: sample the teacher with CoT off, and the model's own answers with CoT on.

responses/teacher   classifier queries, CoT off: their verdicts are the teacher's decisions
responses/traces    the same queries, CoT on: thoughts that the classifier is measured on
responses/own       harmless alignment queries, CoT on: what the model is to keep
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from presafe.judges.scorers import refusal_strings
from presafe.models.sampling import Sampler, load_responses, sample_responses
from presafe.records import Prompt, Response, Thinking
from presafe.run_folder import RunFolder
from presafe.stages.systems import alignment_queries, classifier_queries

Part = Literal["teacher", "traces", "own"]

_THINKING: dict[Part, Thinking] = {"teacher": "off", "traces": "on", "own": "on"}


def respond(run: RunFolder) -> None:
    """Sample all three parts."""
    settings = run.recipe.respond
    for part, thinking in _THINKING.items():
        sample_responses(
            part,
            {part: queries_of(run, part)},
            {part: refusal_strings()},
            Sampler(
                address=run.recipe.model.address,
                thinking=thinking,
                family=run.recipe.model.family,
                dtype=run.recipe.model.dtype,
                batch_size=settings.batch_size,
                max_tokens=settings.teacher_max_tokens if thinking == "off" else settings.max_tokens,
                seed=settings.seed,
            ),
            run.path / "responses" / part,
        )


def queries_of(run: RunFolder, part: Part) -> list[Prompt]:
    """The queries of one part. Traces are sampled for every fourth query: they only measure the classifier."""
    if part == "own":
        return [prompt for prompt in alignment_queries(run.recipe) if prompt.expect != "refuse"]
    queries = classifier_queries(run.recipe)
    return queries if part == "teacher" else queries[::4]


def responses_of(run: RunFolder, part: Part) -> list[Response]:
    """What was said in one part, in the order of `queries_of`.

    Raises:
        RunError: the stage has not finished.
    """
    suites: dict[str, Sequence[Prompt]] = {part: queries_of(run, part)}
    return load_responses(run.path / "responses" / part, _THINKING[part], suites)[part]
