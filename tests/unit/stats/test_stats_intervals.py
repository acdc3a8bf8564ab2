"""Closed-form intervals, against values worked out by hand, their defining equations, and their coverage."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presafe.stats.intervals import (
    Interval,
    clustered,
    clustered_standard_error,
    newcombe,
    seeds_and_prompts,
    student_interval,
    wilson,
)


def test_wilson_of_eight_of_ten() -> None:
    # z² = 3.8415. centre (.8 + .19207) / 1.38415 = .71674;
    # half-width 1.96 · √(.8 · .2 / 10 + 3.8415 / 400) / 1.38415 = 1.96 · .16002 / 1.38415 = .22659.
    interval = wilson(8, 10)
    assert (interval.value, interval.n) == (0.8, 10)
    assert interval.low == pytest.approx(0.4902, abs=1e-4)
    assert interval.high == pytest.approx(0.9433, abs=1e-4)


def test_no_hit_of_twenty_leaves_room_above() -> None:
    # At p = 0 the upper bound is z² / (n + z²) = 3.8415 / 23.8415.
    interval = wilson(0, 20)
    assert (interval.value, interval.low) == (0.0, 0.0)
    assert interval.high == pytest.approx(3.8415 / 23.8415, abs=1e-4)


def test_all_hits_mirror_no_hits() -> None:
    interval = wilson(20, 20)
    assert (interval.value, interval.high) == (1.0, 1.0)
    assert interval.low == pytest.approx(1 - 3.8415 / 23.8415, abs=1e-4)


def test_no_trials_give_no_value() -> None:
    assert wilson(0, 0) == Interval(None, None, None, 0)


@pytest.mark.parametrize(("hits", "n"), [(-1, 5), (6, 5), (1, 0)])
def test_impossible_counts_raise_a_value_error(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"got {hits} of {n}"):
        wilson(hits, n)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_bounds_lie_1_96_standard_errors_from_the_rate(counts: tuple[int, int]) -> None:
    # Wilson 1927: the bounds q solve (p − q)² = z² q (1 − q) / n.
    hits, n = counts
    interval = wilson(hits, n)
    assert interval.low is not None
    assert interval.high is not None
    # Failed first at 0 of 3, by rounding; error bars of negative length cannot be drawn.
    assert 0 <= interval.low <= hits / n <= interval.high <= 1
    for q in (interval.low, interval.high):
        assert (hits / n - q) ** 2 == pytest.approx(1.959964**2 * q * (1 - q) / n, abs=1e-6)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_counting_the_misses_mirrors_the_interval(counts: tuple[int, int]) -> None:
    hits, n = counts
    one, other = wilson(hits, n), wilson(n - hits, n)
    assert one.low == pytest.approx(1 - (other.high or 0.0))
    assert one.high == pytest.approx(1 - (other.low or 0.0))


def test_clustered_standard_error_by_hand() -> None:
    # 1, 1 | 0, 0: mean ½, every deviation ±½. Var = 4·¼/3 = ⅓, over n = 4: 1/12. Products within: 4 · ¼ = 1, over 16.
    assert clustered_standard_error([[1, 1], [0, 0]]) == pytest.approx((1 / 12 + 1 / 16) ** 0.5)
    # 1, 0 | 1, 0: the products are −¼ four times, so 1/12 − 1/16.
    assert clustered_standard_error([[1, 0], [1, 0]]) == pytest.approx((1 / 12 - 1 / 16) ** 0.5)
    # One answer a prompt: no products, and what is left is Var/n.
    assert clustered_standard_error([[1], [0], [0], [0]]) == pytest.approx((0.75 / 3 / 4) ** 0.5)


def test_equal_answers_count_about_once_per_prompt() -> None:
    # 20 prompts, 8 of them hit, each answered 5 times alike. s̄ = .4, n = 100: Σd² = 100·.24 = 24; a prompt's Σd is 5·.6
    # or 5·(−.4): Σ(Σd)² = 8·9 + 12·4 = 120. SE² = 24/99/100 + (120 − 24)/10⁴ = .0120242; n_eff = .24/SE² = 19.96.
    interval = clustered([[True] * 5] * 8 + [[False] * 5] * 12)
    once = wilson(8, 20)
    assert (interval.value, interval.n) == (0.4, 20)
    assert (interval.low, interval.high) == (pytest.approx(once.low, abs=2e-3), pytest.approx(once.high, abs=2e-3))


def test_effective_n_never_exceeds_the_number_of_answers() -> None:
    # Every prompt hits two times of five: the prompts do not differ at all, and the products make SE² almost 0.
    interval = clustered([[True, True, False, False, False]] * 20)
    assert interval[:3] == pytest.approx(wilson(40, 100)[:3])
    assert interval.n == 20


def test_one_answer_per_prompt_is_wilson() -> None:
    assert clustered([[True]] * 8 + [[False]] * 2 + [[]]) == wilson(8, 10)
    assert clustered([]) == wilson(0, 0)


def test_all_or_no_hits_count_once_per_prompt() -> None:
    assert clustered([[False] * 5] * 20)[:3] == wilson(0, 20)[:3]
    assert clustered([[True] * 5] * 20)[:3] == wilson(20, 20)[:3]


def test_clustered_interval_covers_the_true_rate() -> None:
    # 60 prompts with chances of their own, uniform in [0, 1], so a true rate of ½; 4 answers each.
    rng = random.Random(3)
    covered, naive = 0, 0
    for _ in range(300):
        chances = [rng.random() for _ in range(60)]
        answers = [[rng.random() < chance for _ in range(4)] for chance in chances]
        interval, pooled = clustered(answers), wilson(sum(map(sum, answers)), 240)
        assert interval.low is not None
        assert interval.high is not None
        assert pooled.low is not None
        assert pooled.high is not None
        covered += interval.low <= 0.5 <= interval.high
        naive += pooled.low <= 0.5 <= pooled.high
    assert 272 <= covered <= 297  # 95 % of 300 is 285, with a standard deviation of 3.8
    assert naive < 272  # as if all 240 answers were independent


def test_student_interval_by_hand() -> None:
    # 1, 2, 3: s = 1, and t of 2 degrees of freedom is 4.30265 at 97.5 %
    interval = student_interval([1.0, 2.0, 3.0])
    assert (interval.value, interval.n) == (2.0, 3)
    margin = 4.302652730 / 3**0.5
    assert (interval.low, interval.high) == (pytest.approx(2 - margin), pytest.approx(2 + margin))
    assert student_interval([0.4]) == (0.4, None, None, 1)
    assert student_interval([]) == (None, None, None, 0)


def test_newcombe_reproduces_the_published_example() -> None:
    # Newcombe 1998, Table II, contrast (a), method 10: 56/70 − 48/80 is .2 [.0524, .3339].
    interval = newcombe(wilson(56, 70), wilson(48, 80))
    assert (interval.value, interval.n) == (pytest.approx(0.2), 150)
    assert (interval.low, interval.high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))


@given(st.integers(0, 20), st.integers(0, 30))
def test_newcombe_mirrors_and_stays_in_range(left: int, right: int) -> None:
    interval, mirrored = newcombe(wilson(left, 20), wilson(right, 30)), newcombe(wilson(right, 30), wilson(left, 20))
    value, low, high, _ = (number or 0.0 for number in interval)
    assert -1 <= low <= value <= high <= 1
    assert (mirrored.low, mirrored.high) == (pytest.approx(-high), pytest.approx(-low))


def test_newcombe_needs_two_rates() -> None:
    assert newcombe(wilson(1, 2), wilson(0, 0)) == Interval(None, None, None, 2)
    assert newcombe(wilson(0, 0), wilson(1, 2)) == Interval(None, None, None, 2)


def test_seeds_and_prompts_by_hand() -> None:
    # Values .5 and .7: mean .6, s/√2 = .1, t of 1 degree of freedom 12.706: 1.2706. Half-widths .1 and .2: mean .15.
    intervals = [Interval(0.5, 0.4, 0.6, 90), Interval(0.7, 0.5, 0.9, 80)]
    interval = seeds_and_prompts(intervals, lowest=-1.0, highest=3.0)
    assert interval == pytest.approx((0.6, 0.6 - 1.2706205 - 0.15, 0.6 + 1.2706205 + 0.15, 80))
    assert seeds_and_prompts(intervals) == pytest.approx((0.6, 0.0, 1.0, 80))
    assert seeds_and_prompts(intervals[:1]) is None
    assert seeds_and_prompts([*intervals, Interval(None, None, None, 0)]) is None
