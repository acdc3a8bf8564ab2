"""Whom a system follows where teacher and label differ, against counts worked out by hand."""

from __future__ import annotations

import pytest

from presafe.evaluation.answers import Answers
from presafe.evaluation.disputes import dispute_scores, disputed_decisions
from presafe.records import Expect, Response, Verdict


def answers(expect: Expect, *verdicts: Verdict) -> Answers:
    responses = [
        Response(
            prompt_id=str(number),
            thinking="off",
            thought="",
            answer="Fine.",
            truncated=False,
            complete=True,
            num_tokens=2,
            verdict=verdict,
        )
        for number, verdict in enumerate(verdicts)
    ]
    return Answers(expect, responses, "refusal_strings")


TEACHER = {
    "harmful": answers("refuse", "refuse", "comply", "comply", "comply", "unjudged"),
    "benign": answers("comply", "comply", "comply", "comply"),
}


def test_teacher_and_label_differ_on_disputed_prompts() -> None:
    assert disputed_decisions(TEACHER["harmful"]) == {"1": "comply", "2": "comply", "3": "comply"}
    assert disputed_decisions(TEACHER["benign"]) == {}
    assert disputed_decisions(answers("comply", "refuse", "comply")) == {"0": "refuse"}


def test_only_disputed_prompts_count() -> None:
    # Of prompts 1 to 3 the system complies with one, refuses one, and one has no verdict: 1 of 2 like the teacher.
    system = {
        "harmful": answers("refuse", "comply", "comply", "refuse", "unjudged", "refuse"),
        "benign": answers("comply", "refuse", "comply", "comply"),
    }
    (row,) = dispute_scores({3: system}, TEACHER, system="sft", thinking="on")
    assert (row.suite, row.metric, row.seed, row.n) == ("harmful", "like_teacher_rate", 3, 2)
    assert row.value == pytest.approx(0.5)


def test_answers_that_split_evenly_decide_nothing() -> None:
    split = answers("refuse", "refuse", "comply")
    responses = [response.model_copy(update={"prompt_id": "0"}) for response in split.responses]
    assert disputed_decisions(split._replace(responses=responses)) == {}
