"""Areas under the ROC curve and hits at a fixed false-alarm rate, worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presafe.stats.auroc import auroc, tpr_at_fpr_10


def test_auroc_counts_pairs_and_half_the_ties() -> None:
    # 3 against 1, 2, 3: wins 2, ties 1 → 2.5. 2 against them: wins 1, ties 1 → 1.5. Together 4 of 6.
    assert auroc([3, 2], [1, 2, 3]) == pytest.approx(4 / 6)


def test_auroc_of_perfect_reversed_and_equal_scores() -> None:
    assert auroc([3, 4], [1, 2]) == 1.0
    assert auroc([1, 2], [3, 4]) == 0.0
    assert auroc([5, 5, 5], [5, 5]) == 0.5


VALUES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)


@given(VALUES, VALUES)
def test_auroc_is_the_share_of_pairs_won(positive: list[float], negative: list[float]) -> None:
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auroc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc(positive, negative) + auroc(negative, positive) == pytest.approx(1)


def test_tpr_at_fpr_10_allows_a_tenth_of_false_alarms() -> None:
    twenty = [float(number) for number in range(20)]
    # Two of twenty may be refused, 18 and 19: what counts lies above 17.
    assert tpr_at_fpr_10([17.0, 17.5, 18.0, 30.0], twenty) == 0.75
    # Of nine none may be: the threshold is their largest.
    assert tpr_at_fpr_10([7.0, 8.0, 9.0, 10.0], twenty[:9]) == 0.5
    # A tie at the threshold would refuse more than a tenth, so it refuses none of it.
    assert tpr_at_fpr_10([1.0], [1.0] * 10) == 0.0
