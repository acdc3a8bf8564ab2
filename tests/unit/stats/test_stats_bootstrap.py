"""Bootstrap intervals against theory: they hold the value, repeat with the seed, and are as wide as they should be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from presafe.stats.auroc import auroc
from presafe.stats.bootstrap import (
    difference_bounds,
    mean_interval,
    ranking_interval,
    resample_counts,
    statistic_interval,
)
from presafe.stats.intervals import Interval


def test_mean_interval_is_as_wide_as_theory_says() -> None:
    # 0, ½ and 1 equally often: mean ½, variance 1/6; over 150 prompts ± 1.96 · √(1/6/150) = ± .0653
    interval = mean_interval([0.0, 0.5, 1.0] * 50)
    assert (interval.value, interval.n) == (pytest.approx(0.5), 150)
    assert interval.low == pytest.approx(0.5 - 0.0653, abs=0.006)
    assert interval.high == pytest.approx(0.5 + 0.0653, abs=0.006)
    assert mean_interval([0.0, 0.5, 1.0] * 50) == interval


def test_equal_values_still_have_an_interval() -> None:
    interval = mean_interval([1.0] * 10)
    assert (interval.value, interval.high) == (1.0, 1.0)
    # half of 11 points lies at 0: a share of 1/22 of the draws, whose mean over 10 falls to .9 or .8
    assert interval.low == pytest.approx(0.8, abs=0.1)
    assert mean_interval([]) == Interval(None, None, None, 0)


def test_ranking_interval_holds_the_value_and_repeats() -> None:
    positive, negative = [float(i + 10) for i in range(20)], [float(j) for j in range(20)]
    interval = ranking_interval(auroc, positive, negative, seed=1)
    # Of 400 pairs, those with j > i + 10 are lost: 9 + 8 + … + 1 = 45; those with j = i + 10 tied: 10.
    assert interval.value == pytest.approx((400 - 45 - 5) / 400)
    assert interval.low is not None
    assert interval.high is not None
    assert interval.value is not None
    assert interval.low < interval.value < interval.high
    assert interval.n == 40
    assert ranking_interval(auroc, positive, negative, seed=1) == interval
    assert ranking_interval(auroc, positive, negative, seed=2) != interval


def test_ranking_interval_is_as_wide_as_theory_says() -> None:
    # 50 against 50 at an AUROC of about 0.75. Hanley and McNeil 1982, with A = .75: Q1 = A/(2−A) = .6,
    # Q2 = 2A²/(1+A) = .642857; variance (A(1−A) + 49(Q1−A²) + 49(Q2−A²)) / 2500
    # = (.1875 + 1.8375 + 3.9375) / 2500 = .002385, s = .0488: a 95 % interval of about ± .096.
    positive, negative = [i / 50 + 0.29 for i in range(50)], [i / 50 for i in range(50)]
    interval = ranking_interval(auroc, positive, negative, draws=500)
    assert interval.value == pytest.approx(0.75, abs=0.02)
    assert interval.low is not None
    assert interval.high is not None
    assert (interval.high - interval.low) / 2 == pytest.approx(0.096, rel=0.25)


def test_ranking_interval_of_separate_classes_has_no_width() -> None:
    assert ranking_interval(auroc, [2.0, 3.0], [0.0, 1.0])[:3] == (1.0, 1.0, 1.0)


def test_difference_bounds_are_as_wide_as_theory_says() -> None:
    # 10 against 30 of 100 differ: mean .2, variance (40 + 1)/102 − (20/102)² = .3635; ± 1.96 · √(.3635/100) = ± .1182.
    low, high = difference_bounds(10, 30, 100)
    assert (low, high) == (pytest.approx(0.2 - 0.1182, abs=0.02), pytest.approx(0.2 + 0.1182, abs=0.02))
    mirrored_low, mirrored_high = difference_bounds(30, 10, 100)
    assert (mirrored_low, mirrored_high) == (pytest.approx(-high, abs=0.02), pytest.approx(-low, abs=0.02))
    assert difference_bounds(10, 30, 100) == (low, high)


def test_statistic_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    def mean(rows: Sequence[float]) -> float:
        return sum(rows) / len(rows)

    # 0 and 1 equally often: over 400 rows ± 1.96 · √(.25/400) = ± .049
    rows = [0.0, 1.0] * 200
    interval = statistic_interval(mean, rows)
    assert (interval.value, interval.n) == (0.5, 400)
    assert interval.low == pytest.approx(0.451, abs=0.006)
    assert interval.high == pytest.approx(0.549, abs=0.006)
    assert statistic_interval(mean, rows) == interval


def test_statistic_interval_without_rows_or_value_is_empty() -> None:
    assert statistic_interval(lambda rows: 1.0, []) == Interval(None, None, None, 0)
    assert statistic_interval(lambda rows: float("nan"), [1, 2]) == Interval(None, None, None, 2)


def test_resampled_counts_follow_their_weights() -> None:
    counts = resample_counts(np.array([1.0, 3.0]), 8, 4000, np.random.default_rng(0))
    assert counts.shape == (4000, 2)
    assert set(counts.sum(axis=1).tolist()) == {8}
    # 8 · ¼ = 2, with a standard error of √(8 · ¼ · ¾ / 4000) = .019
    assert counts.mean(axis=0).tolist() == pytest.approx([2, 6], abs=0.1)
