"""Probes, directions and planes, by hand."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from presafe.internals.probes import direction_cosine, fit_probe, principal_plane


def test_probe_by_hand() -> None:
    # Two prompts at x = 3 (harmful) and x = 1: mean 2, spread 1, so features 1 and −1. By symmetry b = 0, and
    # d/dw [2 ln(1 + e^−w) + penalty · w²/2] = −2σ(−w) + penalty · w = 0 at w = 1 where penalty = 2σ(−1) = 0.537883.
    # The second feature is the same for both, and gets no weight.
    probe = fit_probe(np.array([[3.0, 7.0], [1.0, 7.0]]), np.array([True, False]), penalty=0.537883)
    assert probe.weight == pytest.approx([1.0, 0.0], abs=1e-4)
    assert probe.bias == pytest.approx(0.0, abs=1e-4)
    # x = 2.5 is the feature 0.5; what the second is elsewhere does not matter
    assert probe.logits(np.array([[2.5, 9.0], [2.0, 7.0]])) == pytest.approx([0.5, 0.0], abs=1e-4)


def test_probe_on_constant_features_learns_the_share() -> None:
    # All features alike: σ(b) is the harmful share, 3 of 4, and b = ln 3 (the bias is not penalised).
    probe = fit_probe(np.ones((4, 2)), np.array([True, True, True, False]))
    assert probe.weight == pytest.approx([0.0, 0.0], abs=1e-6)
    assert probe.bias == pytest.approx(np.log(3), abs=1e-4)


HARMFUL = np.array([True, True, False, False])


def test_cosine_of_two_directions_by_hand() -> None:
    # left: (3, 1) − (2, 1) = (1, 0); right: (2, 2) − (1, 1) = (1, 1): cosine 1/√2. Within a class all are alike, so a
    # bootstrap changes nothing.
    left = np.array([[3.0, 1.0], [3.0, 1.0], [2.0, 1.0], [2.0, 1.0]])
    right = np.array([[2.0, 2.0], [2.0, 2.0], [1.0, 1.0], [1.0, 1.0]])
    assert direction_cosine(left, right, HARMFUL) == pytest.approx((1 / sqrt(2), 1 / sqrt(2), 1 / sqrt(2), 4))
    assert direction_cosine(left, -left, HARMFUL).value == pytest.approx(-1)
    assert direction_cosine(left, np.ones((4, 2)), HARMFUL).value == 0.0  # no direction on one side


def test_cosine_interval_narrows_with_more_prompts() -> None:
    rng = np.random.default_rng(3)
    bounds = []
    for num in (20, 500):
        harmful = np.arange(2 * num) < num
        left = rng.normal(size=(2 * num, 8)) + harmful[:, None] * 1.0
        right = rng.normal(size=(2 * num, 8)) + harmful[:, None] * np.array([1.0] * 4 + [0.0] * 4)
        interval = direction_cosine(left, right, harmful, seed=1)
        value, low, high, _ = interval
        assert value is not None
        assert low is not None
        assert high is not None
        assert low <= value <= high
        assert interval == direction_cosine(left, right, harmful, seed=1)
        bounds.append((low, high))
    # true directions (1, …, 1) and (1, 1, 1, 1, 0, 0, 0, 0): 4 / (√8 · √4) = 1/√2
    (low_of_few, high_of_few), (low_of_many, high_of_many) = bounds
    assert low_of_many < 1 / sqrt(2) < high_of_many
    assert high_of_many - low_of_many < (high_of_few - low_of_few) / 2


def test_plane_by_hand() -> None:
    # Along (0.6, 0.8) at ±2 and along (−0.8, 0.6) at ±1, around (5, 5): squares 8 and 2 of 10 in all. The harmful ones
    # are +2 and +1, and lie right and up.
    first, second, centre = np.array([0.6, 0.8, 0]), np.array([-0.8, 0.6, 0]), np.array([5.0, 5.0, 5.0])
    states = np.stack([2 * first, second, -2 * first, -second]) + centre
    for turned in (1.0, -1.0):
        plane = principal_plane(turned * states, HARMFUL)
        assert plane.shares == pytest.approx((0.8, 0.2))
        assert plane.points == pytest.approx(np.array([[2, 0], [0, 1], [-2, 0], [0, -1]]), abs=1e-9)
