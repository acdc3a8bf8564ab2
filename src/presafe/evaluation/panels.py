"""Two or more judges in one pass: the rates that each member of a panel gives, and how often the members agree.

The members judged the same answers within the panel's own calls (`judges/spec.py`), so nothing is asked again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from presafe.evaluation.answers import Answers
from presafe.evaluation.metrics import by_prompt, score_row, suite_scores
from presafe.records import Response, Score, Thinking
from presafe.stats.intervals import clustered

AGREEMENT = "judges_agree_rate"
"""Answers on which all members of a panel give one verdict, among those that every member judged."""
_OF_A_MEMBER = ("refusal_rate", "not_refused_rate", "attack_success_rate", "over_refusal_rate", "unjudged_rate")


def panel_scores(answers: Mapping[str, Answers], *, system: str, thinking: Thinking, seed: int | None) -> list[Score]:
    """Return the rows of every member of the panel that judged, and one of their agreement; none without a panel.

    Args:
        answers: Of one system in one mode, by suite.
        system: Name of the system.
        thinking: CoT mode.
        seed: Of the training; None for a model that was not trained.
    """
    scores = []
    for suite, answered in answers.items():
        names = list(dict.fromkeys(name for response in answered.responses for name in response.members))
        for name in names:
            rows = suite_scores(
                _as_judged_by(name, answered.responses),
                answered.expect,
                system=system,
                thinking=thinking,
                suite=suite,
                seed=seed,
                judge=name,
            )
            scores += [row for row in rows if row.metric in _OF_A_MEMBER]
        if names:
            agreement = clustered([_agreements(group, len(names)) for group in by_prompt(answered.responses)])
            scores.append(
                score_row(
                    agreement,
                    system=system,
                    thinking=thinking,
                    suite=suite,
                    metric=AGREEMENT,
                    seed=seed,
                    judge=answered.judge,
                    samples=max(map(len, by_prompt(answered.responses))),
                )
            )
    return scores


def _as_judged_by(name: str, responses: Sequence[Response]) -> list[Response]:
    """Return the responses with one member's verdicts in the place of the panel's."""
    return [
        response.model_copy(update={"verdict": response.members.get(name, "unjudged"), "score": None, "extent": None})
        for response in responses
    ]


def _agreements(responses: Sequence[Response], num_members: int) -> list[bool]:
    """Return for each answer that all members judged whether their verdicts are the same."""
    verdicts = [[verdict for verdict in item.members.values() if verdict != "unjudged"] for item in responses]
    return [len(set(judged)) == 1 for judged in verdicts if len(judged) == num_members]
