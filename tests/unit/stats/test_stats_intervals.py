"""Intervals, against values worked out by hand, their defining equations, and how often they cover the truth."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presafe.intervals import Interval, bootstrap, clustered, clustered_standard_error, newcombe, over_seeds, wilson


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


def test_the_clustered_standard_error_by_hand() -> None:
    # 1, 1 | 0, 0: mean ½, every deviation ±½. Var = 4·¼/3 = ⅓, over n = 4: 1/12. Products within: 4 · ¼ = 1, over 16.
    assert clustered_standard_error([[1, 1], [0, 0]]) == pytest.approx((1 / 12 + 1 / 16) ** 0.5)
    # 1, 0 | 1, 0: the products are −¼ four times, so 1/12 − 1/16.
    assert clustered_standard_error([[1, 0], [1, 0]]) == pytest.approx((1 / 12 - 1 / 16) ** 0.5)
    # One answer a prompt: no products, and what is left is Var/n.
    assert clustered_standard_error([[1], [0], [0], [0]]) == pytest.approx((0.75 / 3 / 4) ** 0.5)


def test_answers_that_repeat_one_another_count_about_once_a_prompt() -> None:
    # 20 prompts, 8 of them hit, each answered 5 times alike. s̄ = .4, n = 100: Σd² = 100·.24 = 24; a prompt's Σd is 5·.6
    # or 5·(−.4): Σ(Σd)² = 8·9 + 12·4 = 120. SE² = 24/99/100 + (120 − 24)/10⁴ = .0120242; n_eff = .24/SE² = 19.96.
    found = clustered([[True] * 5] * 8 + [[False] * 5] * 12)
    once = wilson(8, 20)
    assert (found.value, found.n) == (0.4, 20)
    assert (found.low, found.high) == (pytest.approx(once.low, abs=2e-3), pytest.approx(once.high, abs=2e-3))


def test_answers_that_differ_within_every_prompt_count_at_most_as_often_as_they_are() -> None:
    # Every prompt hits two times of five: the prompts do not differ at all, and the products make SE² almost 0.
    found = clustered([[True, True, False, False, False]] * 20)
    assert found[:3] == pytest.approx(wilson(40, 100)[:3])
    assert found.n == 20


def test_one_answer_a_prompt_is_wilsons() -> None:
    assert clustered([[True]] * 8 + [[False]] * 2 + [[]]) == wilson(8, 10)
    assert clustered([]) == wilson(0, 0)


def test_all_or_none_of_many_answers_is_as_sure_as_the_number_of_prompts() -> None:
    assert clustered([[False] * 5] * 20)[:3] == wilson(0, 20)[:3]
    assert clustered([[True] * 5] * 20)[:3] == wilson(20, 20)[:3]


def test_the_clustered_interval_covers_the_true_rate_about_as_often_as_it_says() -> None:
    # 60 prompts with chances of their own, uniform in [0, 1], so a true rate of ½; 4 answers each.
    rng = random.Random(3)
    covered, naive = 0, 0
    for _ in range(300):
        chances = [rng.random() for _ in range(60)]
        answers = [[rng.random() < chance for _ in range(4)] for chance in chances]
        found, pooled = clustered(answers), wilson(sum(map(sum, answers)), 240)
        assert found.low is not None
        assert found.high is not None
        assert pooled.low is not None
        assert pooled.high is not None
        covered += found.low <= 0.5 <= found.high
        naive += pooled.low <= 0.5 <= pooled.high
    assert 272 <= covered <= 297  # 95 % of 300 is 285, with a standard deviation of 3.8
    assert naive < 272  # as if all 240 answers were independent


def test_a_bootstrap_holds_the_mean_and_theory() -> None:
    # 0, ½ and 1 equally often: mean ½, variance 1/6; over 150 prompts ± 1.96 · √(1/6/150) = ± .0653
    found = bootstrap([0.0, 0.5, 1.0] * 50)
    assert (found.value, found.n) == (pytest.approx(0.5), 150)
    assert found.low == pytest.approx(0.5 - 0.0653, abs=0.006)
    assert found.high == pytest.approx(0.5 + 0.0653, abs=0.006)
    assert bootstrap([0.0, 0.5, 1.0] * 50) == found


def test_a_bootstrap_of_values_that_are_all_alike_is_no_point() -> None:
    found = bootstrap([1.0] * 10)
    assert (found.value, found.high) == (1.0, 1.0)
    # half of 11 points lies at 0: a share of 1/22 of the draws, whose mean over 10 falls to .9 or .8
    assert found.low == pytest.approx(0.8, abs=0.1)
    assert bootstrap([]) == Interval(None, None, None, 0)


def test_over_seeds_is_students_interval() -> None:
    # 1, 2, 3: s = 1, and t of 2 degrees of freedom is 4.30265 at 97.5 %
    found = over_seeds([1.0, 2.0, 3.0])
    assert (found.value, found.n) == (2.0, 3)
    assert (found.low, found.high) == (pytest.approx(2 - 4.302652730 / 3**0.5), pytest.approx(2 + 4.302652730 / 3**0.5))
    assert over_seeds([0.4]) == (0.4, None, None, 1)
    assert over_seeds([]) == (None, None, None, 0)


def test_a_difference_of_two_rates_as_published() -> None:
    # Newcombe 1998, Table II, contrast (a), method 10: 56/70 − 48/80 is .2 [.0524, .3339].
    found = newcombe(wilson(56, 70), wilson(48, 80))
    assert (found.value, found.n) == (pytest.approx(0.2), 150)
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))


@given(st.integers(0, 20), st.integers(0, 30))
def test_a_difference_mirrors_and_stays_in_its_range(left: int, right: int) -> None:
    found, mirrored = newcombe(wilson(left, 20), wilson(right, 30)), newcombe(wilson(right, 30), wilson(left, 20))
    value, low, high, _ = (each or 0.0 for each in found)
    assert -1 <= low <= value <= high <= 1
    assert (mirrored.low, mirrored.high) == (pytest.approx(-high), pytest.approx(-low))


def test_a_rate_of_nothing_has_no_difference() -> None:
    assert newcombe(wilson(1, 2), wilson(0, 0)) == Interval(None, None, None, 2)
    assert newcombe(wilson(0, 0), wilson(1, 2)) == Interval(None, None, None, 2)
