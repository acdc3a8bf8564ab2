"""Paired comparisons against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from presafe.stats.comparison import compare, holm, mcnemar


def outcomes_of(*hits: int | None) -> dict[str, tuple[bool | None, ...]]:
    return {f"p{i}": (None if hit is None else bool(hit),) for i, hit in enumerate(hits)}


def test_mcnemar_is_a_sign_test_of_discordant_pairs() -> None:
    # 8 pairs, all one way: 2 · (1/2)^8 = 1/128
    assert mcnemar(0, 8) == pytest.approx(1 / 128)
    # 5 pairs, 1 against 4: 2 · (C(5,0) + C(5,1)) / 2^5 = 12/32
    assert mcnemar(1, 4) == pytest.approx(12 / 32)
    assert mcnemar(0, 0) == 1.0


def test_difference_is_over_prompts_that_both_answered() -> None:
    comparison = compare(outcomes_of(0, 0, 0, 1, None, 1), outcomes_of(1, 1, 0, 1, 1, 0))
    assert comparison is not None
    # without the fifth: left 2/5, right 3/5; prompts 0 and 1 only right, 5 only left
    assert (comparison.left, comparison.right) == (pytest.approx(0.4), pytest.approx(0.6))
    assert comparison.difference == pytest.approx(0.2)
    assert (comparison.only_left, comparison.only_right, comparison.n, comparison.num_left_out) == (1, 2, 5, 1)
    assert comparison.p == pytest.approx(mcnemar(1, 2)) == 1.0
    # σ² = (3 + 1)/7 − (1/7)² = 27/49; 2.8016 · √(27/49 / 5)
    assert comparison.detectable == pytest.approx(2.8016 * (27 / 49 / 5) ** 0.5, rel=1e-4)


def test_equal_systems_still_have_an_interval() -> None:
    comparison = compare(outcomes_of(*[1, 0] * 10), outcomes_of(*[1, 0] * 10))
    assert comparison is not None
    assert (comparison.difference, comparison.p) == (0, 1)
    assert comparison.low < 0 < comparison.high
    # σ² = 1/22; 2.8016 · √(1/22 / 20): 13 points, and not 0
    assert comparison.detectable == pytest.approx(2.8016 * (1 / 22 / 20) ** 0.5, rel=1e-4)
    few = compare(outcomes_of(0, 0, 0), outcomes_of(1, 1, 1))
    assert few is not None
    assert (few.difference, few.p) == (1, pytest.approx(1 / 4))
    assert few.low < 0.9
    assert few.detectable is None  # more than all prompts


def test_interval_covers_the_true_difference() -> None:
    # Left hits with 0.3; right hits where left does and else with 0.2: a true difference of 0.7 · 0.2 = 0.14.
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        left = rng.random(120) < 0.3
        right = left | (rng.random(120) < 0.2)
        comparison = compare(outcomes_of(*left.astype(int)), outcomes_of(*right.astype(int)))
        assert comparison is not None
        covered += comparison.low <= 0.14 <= comparison.high
    assert 180 <= covered <= 199  # 95 % of 200 is 190, with a standard deviation of 3


def test_two_opposite_seeds_give_the_widest_interval() -> None:
    # One seed always hits, the other never: the seed decides, and of a third nothing is known.
    left = {f"p{i}": (False,) for i in range(20)}
    right = {f"p{i}": (True, False) for i in range(20)}
    comparison = compare(left, right)
    assert comparison is not None
    assert (comparison.difference, comparison.low, comparison.high) == (0.5, -1, 1)
    # se² of the seeds' means 1 and 0 is 0.5/2; t = 0.5/0.5 with 1 degree: p = 1 − 2·atan(1)/π = 0.5, and the prompts'
    # least variance 1/(20 · 22) moves it a little
    assert comparison.p == pytest.approx(0.5, abs=0.005)
    assert comparison.p > 0.5
    assert comparison.detectable is None


def test_interval_over_seeds_covers_the_true_difference() -> None:
    # Three seeds whose true rates vary by ±10 points around 0.5, on one side; the other side always at 0.3.
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        rates = rng.normal(0.5, 0.1, 3)
        hits = rng.random((100, 3)) < rates
        left = {f"p{i}": (bool(hit),) for i, hit in enumerate(rng.random(100) < 0.3)}
        right = {f"p{i}": tuple(bool(hit) for hit in row) for i, row in enumerate(hits)}
        comparison = compare(left, right)
        assert comparison is not None
        covered += comparison.low <= 0.2 <= comparison.high
    assert covered >= 180


def test_seed_without_a_verdict_is_dropped() -> None:
    left = {f"p{i}": (False,) for i in range(6)}
    right = {f"p{i}": (i < 3, None) for i in range(6)}
    alone = compare(left, {name: (hits[0],) for name, hits in right.items()})
    assert compare(left, right) == alone


def test_different_prompts_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same prompts"):
        compare(outcomes_of(1), outcomes_of(1, 0))
    assert compare(outcomes_of(None), outcomes_of(1)) is None


def test_holm_multiplies_by_the_remaining_tests() -> None:
    # sorted 0.01·3, 0.02·2, 0.04·1, each at least the one before: 0.03, 0.04, 0.04
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
