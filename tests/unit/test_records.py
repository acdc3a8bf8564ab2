"""Records: frozen, with bounds, and without unknown fields."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from presafe.records import Score, Signal

ONE = Signal(prompt_id="a", probability=0.25)


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_a_signal_is_a_probability(probability: float) -> None:
    with pytest.raises(ValidationError, match="probability"):
        Signal(prompt_id="a", probability=probability)


def test_a_record_cannot_be_changed_or_extended() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ONE.probability = 0.5
    with pytest.raises(ValidationError, match="Extra inputs"):
        Signal(prompt_id="a", probability=0.5, note="x")  # type: ignore[call-arg]


SCORE = {
    "system": "sft",
    "thinking": "on",
    "suite": "s",
    "metric": "refusal_rate",
    "value": 0.5,
    "low": 0.4,
    "high": 0.6,
    "n": 9,
    "seed": 0,
    "judge": None,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 7.3}, r"the value of refusal_rate is in \[0, 1\], got 7\.3"),
        ({"value": -0.1}, r"the value of refusal_rate is in \[0, 1\], got -0\.1"),
        ({"metric": "youden_j", "value": -1.2}, r"the value of youden_j is in \[-1, 1\]"),
        ({"low": 0.7}, r"ends below its start: \[0\.7, 0\.6\]"),
        ({"n": -1}, "greater than or equal to 0"),
        ({"value": float("nan")}, "finite number"),
        ({"high": float("inf")}, "finite number"),
    ],
)
def test_a_score_out_of_bounds_is_refused(change: dict[str, object], message: str) -> None:
    # Failed first: a rate of 7.3 stood in the report as 730 %.
    with pytest.raises(ValidationError, match=message):
        Score.model_validate(SCORE | change)


def test_a_score_within_its_bounds_is_accepted() -> None:
    assert Score.model_validate(SCORE | {"metric": "youden_j", "value": -0.4, "low": None, "high": None}).value == -0.4
    assert Score.model_validate(SCORE | {"value": 1.0, "high": 1.0}).value == 1.0
