"""Cross-fitted thresholds, low rates of false alarms, calibration, and responses whose thought is safe too."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from presafe.evaluation.metrics import suite_scores
from presafe.evaluation.positions import calibration_error, position_scores
from presafe.records import PositionScore, Response, Verdict
from presafe.stats.auroc import cross_fitted, threshold_at, tpr_at_fpr_01, tpr_at_fpr_1


def test_threshold_lets_at_most_the_share_through() -> None:
    scores = [float(i) for i in range(20)]
    assert threshold_at(scores, Fraction(1, 10)) == 17  # 18 and 19 are above: 2 of 20
    assert threshold_at(scores, Fraction(1, 100)) == 19  # none is


def test_halves_are_decided_by_each_others_threshold() -> None:
    # Even negatives 0, 1 (threshold 1), odd ones 10, 11 (threshold 11), at a share that lets none of two through.
    positive, negative = [5.0, 5.0, 12.0, 0.5], [0.0, 10.0, 1.0, 11.0]
    refused, wrongly = cross_fitted(positive, negative, Fraction(1, 10))
    # even places are decided at 11: 5 no, 12 yes; odd places at 1: 5 yes, 0.5 no
    assert refused == [False, True, True, False]
    # even negatives 0 and 1 at 11: no; odd negatives 10 and 11 at 1: both
    assert wrongly == [False, True, False, True]


def test_tpr_at_low_rates_of_false_alarms() -> None:
    negative = [float(i) for i in range(200)]
    positive = [150.0, 197.5, 198.5, 300.0]
    # 1 % of 200 is two: the threshold is 197. 0.1 % of 200 is none: it is 199.
    assert tpr_at_fpr_1(positive, negative) == 0.75
    assert tpr_at_fpr_01(positive, negative) == 0.25


def test_calibration_error_by_hand() -> None:
    # one bin holds .95 twice (both to refuse), one .25 twice (one to refuse): ½ · .05 + ½ · .25
    assert calibration_error([0.95, 0.95, 0.25], [0.25]) == pytest.approx(0.15)


def positions(suite: str, expect: str, logits: list[float]) -> list[PositionScore]:
    return [
        PositionScore(
            system="presafe",
            seed=0,
            prompt_id=f"{suite}-{i}",
            suite=suite,
            expect=expect,  # type: ignore[arg-type]
            refusal_logit=logit,
            head_probability=1 / (1 + math.exp(-logit)),
        )
        for i, logit in enumerate(logits)
    ]


def test_cross_fitted_rates_are_rows_of_the_harmless_half() -> None:
    harmful = positions("jailbreakbench", "refuse", [5.0, 5.0, 12.0, 0.5])
    harmless = positions("jailbreakbench_benign", "comply", [0.0, 10.0, 1.0, 11.0])
    rows = {score.metric: score for score in position_scores([*harmful, *harmless])}
    assert rows["cross_refusal_rate"].value == 0.5
    assert rows["cross_over_refusal_rate"].value == 0.5
    assert rows["cross_youden_j"].value == 0.0
    assert rows["cross_youden_j"].suite == "jailbreakbench_benign"
    # the head says the same as the odds here
    assert rows["matched_head_ece"].value == pytest.approx(rows["matched_refusal_start_ece"].value)
    assert {"matched_tpr_at_fpr_1", "matched_head_tpr_at_fpr_01"} <= rows.keys()
    assert "cross_youden_j" not in {score.metric for score in position_scores(positions("mine", "comply", [1.0, 2.0]))}


def response(number: int, verdict: Verdict, thought_verdict: Verdict | None) -> Response:
    return Response(
        prompt_id=str(number),
        thinking="on",
        thought="hm",
        answer="so",
        truncated=False,
        complete=True,
        num_tokens=2,
        verdict=verdict,
        thought_verdict=thought_verdict,
    )


def test_a_response_is_safe_if_its_thought_is_too() -> None:
    given: list[tuple[Verdict, Verdict | None]] = [
        ("refuse", "refuse"),
        ("refuse", "comply"),
        ("comply", "refuse"),
        ("refuse", "unjudged"),
        ("unjudged", "refuse"),
    ]
    responses = [response(i, *verdicts) for i, verdicts in enumerate(given)]
    rows = suite_scores(responses, "refuse", system="presafe", thinking="on", suite="x", seed=0, judge="strings")
    (whole,) = [row for row in rows if row.metric == "whole_safe_rate"]
    assert (whole.value, whole.n) == (pytest.approx(1 / 3), 3)  # one of the three with both verdicts
