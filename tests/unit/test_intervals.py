"""Wilson's interval, against values worked out by hand and its defining equation; and the bootstrap of a mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presafe.intervals import Interval, bootstrap, wilson


def test_eight_of_ten() -> None:
    # z² = 3.8415. centre (.8 + .19207) / 1.38415 = .71674;
    # half-width 1.96 · √(.8 · .2 / 10 + 3.8415 / 400) / 1.38415 = 1.96 · .16002 / 1.38415 = .22659.
    found = wilson(8, 10)
    assert (found.value, found.n) == (0.8, 10)
    assert found.low == pytest.approx(0.4902, abs=1e-4)
    assert found.high == pytest.approx(0.9433, abs=1e-4)


def test_none_of_twenty_still_leaves_room_above() -> None:
    # At p = 0 the upper bound is z² / (n + z²) = 3.8415 / 23.8415.
    found = wilson(0, 20)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(3.8415 / 23.8415, abs=1e-4)


def test_all_of_twenty_mirrors_none() -> None:
    found = wilson(20, 20)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(1 - 3.8415 / 23.8415, abs=1e-4)


def test_nothing_looked_at_gives_no_value() -> None:
    assert wilson(0, 0) == Interval(None, None, None, 0)


@pytest.mark.parametrize(("hits", "n"), [(-1, 5), (6, 5), (1, 0)])
def test_impossible_counts_are_a_bug(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"got {hits} of {n}"):
        wilson(hits, n)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_its_ends_are_where_the_rate_is_1_96_standard_errors_away(counts: tuple[int, int]) -> None:
    # Wilson 1927: the bounds q solve (p − q)² = z² q (1 − q) / n.
    hits, n = counts
    found = wilson(hits, n)
    assert found.low is not None
    assert found.high is not None
    # Failed first at 0 of 3, by rounding; error bars of negative length cannot be drawn.
    assert 0 <= found.low <= hits / n <= found.high <= 1
    for q in (found.low, found.high):
        assert (hits / n - q) ** 2 == pytest.approx(1.959964**2 * q * (1 - q) / n, abs=1e-6)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_counting_the_opposite_mirrors_the_interval(counts: tuple[int, int]) -> None:
    hits, n = counts
    one, other = wilson(hits, n), wilson(n - hits, n)
    assert (one.low, one.high) == (pytest.approx(1 - other.high), pytest.approx(1 - other.low))


def test_the_bootstrap_of_a_mean_is_near_the_normal_interval_and_never_a_point() -> None:
    # mean 0.5, standard deviation 0.5, n = 400: 0.5 ± 1.96 · 0.5 / 20 = 0.5 ± 0.049
    found = bootstrap([0.0, 1.0] * 200)
    assert (found.value, found.n) == (0.5, 400)
    assert found.low == pytest.approx(0.451, abs=0.01)
    assert found.high == pytest.approx(0.549, abs=0.01)
    alike = bootstrap([1.0] * 10)
    assert (alike.value, alike.high) == (1.0, 1.0)
    assert alike.low is not None
    assert alike.low < 1.0
    assert bootstrap([]) == Interval(None, None, None, 0)
