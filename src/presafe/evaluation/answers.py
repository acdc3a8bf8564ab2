"""The answers of one system in one mode, suite by suite: to rows of results, and to what is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from presafe.evaluation.differences import Kind, SystemOutcomes, kind_of, outcomes_of
from presafe.evaluation.metrics import suite_scores, youden_scores
from presafe.judges.scorers import judge_name, thought_judge_name
from presafe.models.sampling import LoggedSuite
from presafe.records import Expect, Prompt, Response, Score, Thinking
from presafe.stats.comparison import Outcomes


class Answers(NamedTuple):
    """The answers to one suite, grouped by prompt; what is expected of its prompts, and who judged them."""

    expect: Expect
    responses: Sequence[Response]
    judge: str
    thought_judge: str | None = None

    @classmethod
    def from_log(cls, suite: LoggedSuite) -> Answers:
        """Build answers from a log."""
        responses = [response for answers in suite.responses.values() for response in answers]
        return cls(suite.expect, responses, suite.judge, suite.thought_judge)


def collect_answers(
    suites: Mapping[str, Sequence[Prompt]],
    responses: Mapping[str, Sequence[Response]],
    judge: str | None,
    thought_judge: str | None,
) -> dict[str, Answers]:
    """Return responses by suite, each with what is expected and who judged.

    Args:
        suites: Prompts by suite; all prompts of a suite expect the same.
        responses: Responses by suite.
        judge: The judge of answers that was chosen; None takes the default.
        thought_judge: The judge of thoughts that was chosen; None takes the default.
    """
    expects = {suite: prompts[0].expect for suite, prompts in suites.items()}
    return {
        suite: Answers(expect, responses[suite], judge_name(expect, judge), thought_judge_name(expect, thought_judge))
        for suite, expect in expects.items()
    }


def score_answers(answers: Mapping[str, Answers], *, system: str, thinking: Thinking, seed: int | None) -> list[Score]:
    """Return all rows of one system, mode and seed.

    Args:
        answers: By suite.
        system: Name of the system.
        thinking: CoT mode.
        seed: Of the training; None for a model that was not trained.
    """
    scores = [
        score
        for suite, answered in answers.items()
        for score in suite_scores(
            answered.responses,
            answered.expect,
            system=system,
            thinking=thinking,
            suite=suite,
            seed=seed,
            judge=answered.judge,
            thought_judge=answered.thought_judge,
        )
    ]
    return [*scores, *youden_scores(scores)]


def collect_outcomes(system: str, thinking: Thinking, seeds: Sequence[Mapping[str, Answers]]) -> SystemOutcomes:
    """Return what is compared of one system in one mode.

    Args:
        system: Name of the system.
        thinking: CoT mode.
        seeds: Its answers by suite, once per seed, all to the same prompts.
    """
    suites: dict[str, tuple[Kind, Outcomes]] = {}
    for suite, first in seeds[0].items():
        responses = [answers[suite].responses for answers in seeds]
        kind = kind_of(responses, first.expect)
        suites[suite] = kind, outcomes_of(responses, kind)
    return SystemOutcomes(system, thinking, suites)
