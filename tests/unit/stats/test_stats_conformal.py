"""A threshold with a promise, and probabilities that are scaled: values derived by hand."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest

from presafe.stats.conformal import (
    Scaling,
    conformal_threshold,
    cross_fitted_loss,
    fit_scaling,
    log_loss,
    logit,
)


def test_the_threshold_is_a_ranked_score() -> None:
    # n = 19, α = 1/10: k = ⌈20 · 0.9⌉ = 18, the second largest of 19
    scores = [number / 20 for number in range(19)]
    threshold = conformal_threshold(scores[::-1], Fraction(1, 10))
    assert threshold is not None
    assert (threshold.value, threshold.rank, threshold.n) == (17 / 20, 18, 19)
    # the rate is Beta(2, 18): mean 0.1; its 2.5 % and 97.5 % quantiles, from tables of the binomial tail
    assert (threshold.low, threshold.high) == pytest.approx((0.0130, 0.2603), abs=1e-4)


def test_a_rate_that_n_cannot_promise_has_no_threshold() -> None:
    # 1/10 needs k = ⌈(n + 1) 0.9⌉ ≤ n, so n ≥ 9; Fraction: 10 · 0.9 in floating point is above 9
    assert conformal_threshold([0.0] * 8, Fraction(1, 10)) is None
    assert conformal_threshold([0.0] * 9, Fraction(1, 10)) is not None


def test_the_promise_holds_on_new_scores() -> None:
    draw = random.Random(0)
    above = 0
    for _ in range(2000):
        scores = [draw.gauss(0, 1) for _ in range(20)]
        threshold = conformal_threshold(scores[:-1], Fraction(1, 10))
        assert threshold is not None
        above += scores[-1] > threshold.value
    # exactly 2 of 20 on average: 200 of 2,000, with a standard deviation of √(2000 · .1 · .9) = 13.4
    assert abs(above - 200) < 3 * 13.5


def test_a_known_scaling_is_found() -> None:
    # At z = ±1 and ±3, shares of σ(2z − 1) of 10,000 each: the fit must give slope 2 and intercept −1.
    logits, labels = [], []
    for z in (-3.0, -1.0, 1.0, 3.0):
        positives = round(10_000 * Scaling(2, -1).probability(z))
        logits += [z] * 10_000
        labels += [True] * positives + [False] * (10_000 - positives)
    assert fit_scaling(logits, labels, shifted=True) == pytest.approx((2, -1), abs=0.01)
    assert fit_scaling(logits, labels, shifted=False).intercept == 0
    assert log_loss([0.0], [True], Scaling(1, 0)) == pytest.approx(math.log(2))


def test_separated_classes_have_a_finite_scaling() -> None:
    scaling = fit_scaling([-1.0, 1.0], [False, True], shifted=False)
    assert 1 < scaling.slope <= 100
    assert 0.5 < scaling.probability(1.0) <= 1


def test_a_shift_is_chosen_where_it_helps() -> None:
    draw = random.Random(1)
    logits = [draw.gauss(0, 2) for _ in range(2000)]
    labels = [draw.random() < Scaling(1, 2).probability(z) for z in logits]
    assert cross_fitted_loss(logits, labels, shifted=True) < cross_fitted_loss(logits, labels, shifted=False) - 0.05


def test_certain_probabilities_have_finite_odds() -> None:
    assert logit(0.5) == 0
    assert logit(1.0) == pytest.approx(-logit(0.0))
    assert logit(1.0) == pytest.approx(math.log(1e7), rel=1e-6)
