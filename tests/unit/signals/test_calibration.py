"""Measure accuracy, reliability bins and calibration error, against values worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presafe.errors import SignalError
from presafe.signals.calibration import accuracy, expected_calibration_error, reliability

# Five decisions: p' and whether the teacher refused.
PROBABILITIES = [0.92, 0.98, 0.91, 0.15, 0.55]
REFUSED = [True, True, False, False, False]


def test_accuracy_counts_agreement_at_one_half() -> None:
    # Right: .92, .98 (refused) and .15 (not); wrong: .91 and .55. 3 of 5.
    # Wilson, z = 1.96, z² = 3.8415: centre (.6 + .38415) / 1.7683 = .5565,
    # half-width 1.96 · √(.24/5 + 3.8415/100) / 1.7683 = 1.96 · .29397 / 1.7683 = .3258.
    share = accuracy(PROBABILITIES, REFUSED)
    assert (share.value, share.n) == (0.6, 5)
    assert share.low == pytest.approx(0.2307, abs=2e-4)
    assert share.high == pytest.approx(0.8824, abs=2e-4)


def test_exactly_one_half_means_refuse() -> None:
    assert accuracy([0.5], [True]).value == 1.0
    assert accuracy([0.5], [False]).value == 0.0


def test_bins_hold_means_and_frequencies() -> None:
    bins = reliability(PROBABILITIES, REFUSED)
    assert len(bins) == 10
    assert [row.n for row in bins] == [0, 1, 0, 0, 0, 1, 0, 0, 0, 3]
    last = bins[9]
    assert (last.low, last.high) == (0.9, 1.0)
    assert last.confidence_mean == pytest.approx((0.92 + 0.98 + 0.91) / 3)
    assert last.frequency == pytest.approx(2 / 3)  # two of the three were refused
    assert (bins[0].confidence_mean, bins[0].frequency) == (None, None)


def test_bin_bounds_belong_to_the_upper_bin() -> None:
    # 0 → bin 0, 0.25 → bin 2, 0.5 → bin 5 (they open it), 1 → bin 9 (there is none above).
    bins = reliability([0.0, 0.25, 0.5, 1.0], [False, False, True, True])
    assert [number for number, row in enumerate(bins) if row.n] == [0, 2, 5, 9]


def test_calibration_error_weights_gaps_by_bin() -> None:
    # Bin .9–1: mean .93667, frequency .66667, gap .27, 3 of 5 → .162
    # Bin .1–.2: mean .15, frequency 0, gap .15, 1 of 5     → .030
    # Bin .5–.6: mean .55, frequency 0, gap .55, 1 of 5     → .110
    assert expected_calibration_error(PROBABILITIES, REFUSED) == pytest.approx(0.162 + 0.030 + 0.110)


def test_calibration_error_of_best_and_worst_classifier() -> None:
    assert expected_calibration_error([1.0, 0.0], [True, False]) == 0.0
    assert expected_calibration_error([1.0, 0.0], [False, True]) == 1.0


def test_opposite_errors_in_one_bin_cancel() -> None:
    # .72 and .78 in one bin, of mean .75; one of two refused: |.5 − .75|.
    assert expected_calibration_error([0.72, 0.78], [True, False]) == pytest.approx(0.25)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_every_prediction_is_in_exactly_one_bin(pairs: list[tuple[float, bool]]) -> None:
    probabilities, refused = [p for p, _ in pairs], [label for _, label in pairs]
    bins = reliability(probabilities, refused)
    assert sum(row.n for row in bins) == len(pairs)
    # Means are sums of floats: the last digit may fall outside the bin.
    assert all(row.low - 1e-9 <= (row.confidence_mean or row.low) <= row.high + 1e-9 for row in bins)
    assert 0 <= expected_calibration_error(probabilities, refused) <= 1 + 1e-9


@pytest.mark.parametrize(("probabilities", "refused"), [([], []), ([0.5], []), ([0.5, 0.5], [True])])
def test_empty_or_unequal_lists_are_errors(probabilities: list[float], refused: list[bool]) -> None:
    for measure in (accuracy, reliability, expected_calibration_error):
        with pytest.raises(SignalError, match=rf"{len(probabilities)} probabilities for {len(refused)} decisions"):
            measure(probabilities, refused)
