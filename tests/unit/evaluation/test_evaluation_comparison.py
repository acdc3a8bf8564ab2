"""Paired comparisons against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from presafe.evaluation.comparison import compare, holm, mcnemar


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
    # d = 1, 1, 0, 0, −1: mean 0.2, variance (2 · 0.64 + 2 · 0.04 + 1.44) / 4 = 0.7; 2.8016 · √(0.7 / 5)
    assert found.detectable == pytest.approx(2.8016 * 0.7**0.5 / 5**0.5, rel=1e-4)


def test_the_same_answers_differ_by_nothing() -> None:
    found = compare(outcomes(1, 0, 1), outcomes(1, 0, 1))
    assert found is not None
    assert (found.difference, found.low, found.high, found.p, found.detectable) == (0, 0, 0, 1, 0)


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    # Left hits with 0.3; right hits where left does and else with 0.2: a true difference of 0.7 · 0.2 = 0.14.
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        left = rng.random(120) < 0.3
        right = left | (rng.random(120) < 0.2)
        found = compare(outcomes(*left.astype(int)), outcomes(*right.astype(int)))
        assert found is not None
        covered += found.low <= 0.14 <= found.high
    assert covered >= 51  # 95 % of 60 is 57; fewer than 51 would happen once in 300


def test_several_seeds_are_shares_and_widen_the_interval() -> None:
    # One seed always hits, the other never: the share of every prompt is a half, the seed decides everything.
    left = {f"p{i}": (False, False) for i in range(20)}
    right = {f"p{i}": (True, False) for i in range(20)}
    found = compare(left, right)
    assert found is not None
    assert (found.difference, found.low, found.high) == (0.5, 0.0, 1.0)
    assert found.p < 0.01  # over prompts alone there is no doubt: the seeds are taken as they are


def test_sign_flips_agree_with_mcnemar() -> None:
    # 2 against 8 discordant: exact p = 2 · (1 + 10 + 45) / 1024 = 0.109
    one = {f"p{i}": (i < 2,) for i in range(10)}
    other = {f"p{i}": (i >= 2,) for i in range(10)}
    twice = [{name: (*hit, *hit) for name, hit in side.items()} for side in (one, other)]
    found = compare(*twice)
    assert found is not None
    assert found.p == pytest.approx(mcnemar(2, 8), abs=0.01)


def test_other_prompts_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same prompts"):
        compare(outcomes(1), outcomes(1, 0))
    assert compare(outcomes(None), outcomes(1)) is None


def test_holm_multiplies_by_the_tests_that_are_left() -> None:
    # sorted 0.01·3, 0.02·2, 0.04·1, each at least the one before: 0.03, 0.04, 0.04
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
