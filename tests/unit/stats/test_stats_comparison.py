"""Paired comparisons against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from presafe.evaluation import comparison
from presafe.evaluation.comparison import AnsweredSuites, compare, differences, holm, kind_of, mcnemar
from presafe.records import Response, Verdict


def outcomes(*hits: int | None) -> dict[str, tuple[bool | None, ...]]:
    return {f"p{i}": (None if hit is None else bool(hit),) for i, hit in enumerate(hits)}


def test_mcnemar_is_the_sign_test_of_the_discordant_pairs() -> None:
    # 8 pairs, all one way: 2 · (1/2)^8 = 1/128
    assert mcnemar(0, 8) == pytest.approx(1 / 128)
    # 5 pairs, 1 against 4: 2 · (C(5,0) + C(5,1)) / 2^5 = 12/32
    assert mcnemar(1, 4) == pytest.approx(12 / 32)
    assert mcnemar(0, 0) == 1.0


def test_a_difference_is_that_of_the_shares_over_the_prompts_both_answered() -> None:
    found = compare(outcomes(0, 0, 0, 1, None, 1), outcomes(1, 1, 0, 1, 1, 0))
    assert found is not None
    # without the fifth: left 2/5, right 3/5; prompts 0 and 1 only right, 5 only left
    assert (found.left, found.right) == (pytest.approx(0.4), pytest.approx(0.6))
    assert found.difference == pytest.approx(0.2)
    assert (found.only_left, found.only_right, found.n, found.num_left_out) == (1, 2, 5, 1)
    assert found.p == pytest.approx(mcnemar(1, 2)) == 1.0
    # σ² = (3 + 1)/7 − (1/7)² = 27/49; 2.8016 · √(27/49 / 5)
    assert found.detectable == pytest.approx(2.8016 * (27 / 49 / 5) ** 0.5, rel=1e-4)


def test_of_nothing_seen_nothing_is_certain() -> None:
    found = compare(outcomes(*[1, 0] * 10), outcomes(*[1, 0] * 10))
    assert found is not None
    assert (found.difference, found.p) == (0, 1)
    assert found.low < 0 < found.high
    # σ² = 1/22; 2.8016 · √(1/22 / 20): 13 points, and not 0
    assert found.detectable == pytest.approx(2.8016 * (1 / 22 / 20) ** 0.5, rel=1e-4)
    few = compare(outcomes(0, 0, 0), outcomes(1, 1, 1))
    assert few is not None
    assert (few.difference, few.p) == (1, pytest.approx(1 / 4))
    assert few.low < 0.9
    assert few.detectable is None  # more than all prompts


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    # Left hits with 0.3; right hits where left does and else with 0.2: a true difference of 0.7 · 0.2 = 0.14.
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        left = rng.random(120) < 0.3
        right = left | (rng.random(120) < 0.2)
        found = compare(outcomes(*left.astype(int)), outcomes(*right.astype(int)))
        assert found is not None
        covered += found.low <= 0.14 <= found.high
    assert 180 <= covered <= 199  # 95 % of 200 is 190, with a standard deviation of 3


def test_seeds_that_disagree_leave_everything_open() -> None:
    # One seed always hits, the other never: the seed decides, and of a third nothing is known.
    left = {f"p{i}": (False,) for i in range(20)}
    right = {f"p{i}": (True, False) for i in range(20)}
    found = compare(left, right)
    assert found is not None
    assert (found.difference, found.low, found.high) == (0.5, -1, 1)
    # se² = 0.5/2 of the seeds' means 1 and 0 + σ²/20, σ² = (20/4 + 1)/22 − (10/22)²; t = 0.5/se with 1 degree
    se = (0.25 + (6 / 22 - (10 / 22) ** 2) / 20) ** 0.5
    assert found.p == pytest.approx(1 - 2 * np.arctan(0.5 / se) / np.pi)
    assert found.detectable is None


def test_the_interval_over_seeds_covers_as_often_as_it_says() -> None:
    # Three seeds whose true rates vary by ±10 points around 0.5, on one side; the other side always at 0.3.
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        rates = rng.normal(0.5, 0.1, 3)
        hits = rng.random((100, 3)) < rates
        left = {f"p{i}": (bool(hit),) for i, hit in enumerate(rng.random(100) < 0.3)}
        right = {f"p{i}": tuple(bool(each) for each in row) for i, row in enumerate(hits)}
        found = compare(left, right)
        assert found is not None
        covered += found.low <= 0.2 <= found.high
    assert covered >= 180


def test_a_seed_without_a_verdict_says_nothing() -> None:
    left = {f"p{i}": (False,) for i in range(6)}
    right = {f"p{i}": (i < 3, None) for i in range(6)}
    alone = compare(left, {name: (hits[0],) for name, hits in right.items()})
    assert compare(left, right) == alone


def test_other_prompts_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same prompts"):
        compare(outcomes(1), outcomes(1, 0))
    assert compare(outcomes(None), outcomes(1)) is None


def test_holm_multiplies_by_the_tests_that_are_left() -> None:
    # sorted 0.01·3, 0.02·2, 0.04·1, each at least the one before: 0.03, 0.04, 0.04
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def judged(*verdicts: Verdict) -> list[Response]:
    blank = {"thinking": "on", "thought": "", "answer": "", "truncated": False, "complete": True, "num_tokens": 1}
    return [Response(prompt_id=str(i), verdict=verdict, **blank) for i, verdict in enumerate(verdicts)]


def test_what_a_judge_of_harm_said_is_compared_by_what_is_unsafe() -> None:
    before, after = judged("unsafe", "unsafe", "safe", "unjudged"), judged("safe", "unsafe", "safe", "safe")
    assert (kind_of([before], "refuse"), kind_of([judged("refuse")], "refuse")) == ("attack", "refuse")
    assert kind_of([judged("refuse")], "comply") == "comply"
    left, right = (
        AnsweredSuites(name, "on", {"s": ("attack", comparison.outcomes([said], "attack"))})
        for name, said in (("before", before), ("after", after))
    )
    (found,) = differences([(left, right)])
    # of the three that both judged: 2 unsafe before, 1 after
    assert (found.metric, found.n, found.num_left_out) == ("attack_success_rate", 3, 1)
    assert (found.value_against, found.value) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
