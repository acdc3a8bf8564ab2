"""What one system said in one mode, suite by suite: to rows of results, and to what is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from presafe.evaluation.comparison import AnsweredSuites, Kind, Outcomes, kind_of, outcomes
from presafe.evaluation.metrics import suite_scores, youden_scores
from presafe.judges.scorers import judge_name, thought_judge_name
from presafe.models.sampling import LoggedSuite
from presafe.records import Expect, Prompt, Response, Score, Thinking


class Answers(NamedTuple):
    """The answers to one suite, those to one prompt together; what is expected of its prompts, and who judged them."""

    expect: Expect
    responses: Sequence[Response]
    judge: str
    thought_judge: str | None = None

    @classmethod
    def logged(cls, suite: LoggedSuite) -> Answers:
        """Those of a log."""
        said = [response for answers in suite.responses.values() for response in answers]
        return cls(suite.expect, said, suite.judge, suite.thought_judge)


def answers_to(
    suites: Mapping[str, Sequence[Prompt]],
    said: Mapping[str, Sequence[Response]],
    judge: str | None,
    thought_judge: str | None,
) -> dict[str, Answers]:
    """What was said to suites just now.

    Args:
        suites: Prompts by suite; those of a suite share what is expected of the model.
        said: Responses by suite.
        judge: The judge of answers that was chosen, if one was.
        thought_judge: That of thoughts.
    """
    expects = {name: prompts[0].expect for name, prompts in suites.items()}
    return {
        name: Answers(expect, said[name], judge_name(expect, judge), thought_judge_name(expect, thought_judge))
        for name, expect in expects.items()
    }


def scores_of(answers: Mapping[str, Answers], *, system: str, thinking: Thinking, seed: int | None) -> list[Score]:
    """All rows of one system, mode and seed."""
    scores = [
        score
        for suite, each in answers.items()
        for score in suite_scores(
            each.responses,
            each.expect,
            system=system,
            thinking=thinking,
            suite=suite,
            seed=seed,
            judge=each.judge,
            thought_judge=each.thought_judge,
        )
    ]
    return [*scores, *youden_scores(scores)]


def answered(system: str, thinking: Thinking, seeds: Sequence[Mapping[str, Answers]]) -> AnsweredSuites:
    """What is compared of one system in one mode.

    Args:
        system: Its name.
        thinking: CoT mode.
        seeds: What it said, once a seed, all to the same prompts.
    """
    suites: dict[str, tuple[Kind, Outcomes]] = {}
    for suite, first in seeds[0].items():
        said = [each[suite].responses for each in seeds]
        kind = kind_of(said, first.expect)
        suites[suite] = kind, outcomes(said, kind)
    return AnsweredSuites(system, thinking, suites)
