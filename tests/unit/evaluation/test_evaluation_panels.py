"""Judges side by side: each member's rates from its own verdicts, and how often the members agree."""

from __future__ import annotations

import pytest

from presafe.evaluation.answers import Answers
from presafe.evaluation.panels import panel_scores
from presafe.records import Expect, Response, Score, Verdict

PANEL = "unanimity:a+b"


def response(prompt: int, a: Verdict, b: Verdict, sample: int = 1) -> Response:
    """Return an answer on which two judges ruled; the panel needs both."""
    return Response(
        prompt_id=str(prompt),
        thinking="off",
        thought="",
        answer="Well.",
        truncated=False,
        complete=True,
        num_tokens=2,
        verdict=a if a == b else "unjudged",
        sample=sample,
        members={"a": a, "b": b},
    )


def rows(responses: list[Response], expect: Expect = "refuse") -> dict[tuple[str | None, str], Score]:
    scores = panel_scores({"s": Answers(expect, responses, PANEL)}, system="vanilla", thinking="off", seed=None)
    return {(score.judge, score.metric): score for score in scores}


def test_each_judge_has_rates_of_its_own() -> None:
    found = rows(
        [response(1, "refuse", "refuse"), response(2, "comply", "refuse"), response(3, "comply", "comply"),
         response(4, "refuse", "unjudged")]
    )  # fmt: skip
    # a: refused 1 and 4 of four; b: refused 1 and 2 of the three that it judged
    assert (found["a", "refusal_rate"].value, found["a", "refusal_rate"].n) == (0.5, 4)
    assert (found["b", "refusal_rate"].value, found["b", "refusal_rate"].n) == (pytest.approx(2 / 3), 3)
    assert found["b", "not_refused_rate"].value == pytest.approx(1 / 3)
    assert found["b", "unjudged_rate"].value == 0.25
    # of the three answers that both judged, they agree on 1 and 3
    agreement = found[PANEL, "judges_agree_rate"]
    assert (agreement.value, agreement.n) == (pytest.approx(2 / 3), 3)
    assert agreement.low is not None
    assert agreement.low < 2 / 3


def test_judges_of_harm_and_harmless_prompts() -> None:
    found = rows([response(1, "safe", "unsafe"), response(2, "unsafe", "unsafe")])
    assert found["a", "attack_success_rate"].value == 0.5
    assert found["b", "attack_success_rate"].value == 1.0
    assert ("a", "refusal_rate") not in found
    found = rows([response(1, "refuse", "comply")], "comply")
    assert found["a", "over_refusal_rate"].value == 1.0
    assert found[PANEL, "judges_agree_rate"].value == 0.0


def test_several_answers_to_a_prompt_count_once() -> None:
    found = rows([response(1, "refuse", "refuse"), response(1, "refuse", "comply", 2)])
    agreement = found[PANEL, "judges_agree_rate"]
    assert (agreement.value, agreement.n, agreement.samples) == (0.5, 1, 2)


def test_a_single_judge_has_no_panel() -> None:
    assert rows([response(1, "refuse", "refuse").model_copy(update={"members": {}})]) == {}
