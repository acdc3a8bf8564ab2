"""The order of training rows: every row once a pass, near lengths together, groups at random, kinds in turn."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from presafe.alignment.order import mixed_order

LENGTHS = [10 * (row % 12) + 20 for row in range(48)]
"""Twelve lengths from 20 to 130, four rows each, in turn."""
SAME = ["x"] * 48
KINDS = ["refuse"] * 24 + ["comply"] * 16 + ["answer"] * 8


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 5))
def test_every_pass_holds_every_row_once(lengths: list[int], group: int, seed: int) -> None:
    n = len(lengths)
    order = mixed_order(lengths, ["x"] * n, group, 3 * n, seed)
    for start in (0, n, 2 * n):
        assert sorted(order[start : start + n]) == list(range(n))


@given(st.integers(0, 100))
def test_order_has_the_requested_length(num_rows: int) -> None:
    assert len(mixed_order(LENGTHS, SAME, 4, num_rows, seed=0)) == num_rows


def test_groups_have_near_lengths() -> None:
    # A length is read with ±10 % of noise, so a row of length L is ranked somewhere in [0.9 L, 1.1 L]. In a group
    # of neighbours by rank, longest over shortest seldom exceeds 1.1 / 0.9 = 1.22 by more than one step of length.
    order = mixed_order(LENGTHS, SAME, 4, 48, seed=1)
    spans = [
        max(LENGTHS[row] for row in order[start : start + 4]) - min(LENGTHS[row] for row in order[start : start + 4])
        for start in range(0, 48, 4)
    ]
    # Drawn without regard to length, four of these rows span 66 on average: the range of 4 uniform draws is 3/5 of 110.
    assert sum(spans) / len(spans) <= 22
    assert max(spans) <= 40


def test_groups_are_not_sorted_by_length() -> None:
    order = mixed_order(LENGTHS, SAME, 4, 48, seed=1)
    means = [sum(LENGTHS[row] for row in order[start : start + 4]) / 4 for start in range(0, 48, 4)]
    rises = sum(a < b for a, b in pairwise(means))
    assert 2 <= rises <= 9  # 11 rises would be sorted; 12 groups at random rise 5.5 times


def test_order_depends_on_the_seed() -> None:
    assert mixed_order(LENGTHS, SAME, 4, 96, seed=1) == mixed_order(LENGTHS, SAME, 4, 96, seed=1)
    assert mixed_order(LENGTHS, SAME, 4, 96, seed=1) != mixed_order(LENGTHS, SAME, 4, 96, seed=2)


def test_each_pass_has_its_own_order() -> None:
    order = mixed_order(LENGTHS, SAME, 4, 96, seed=1)
    assert order[:48] != order[48:]


def test_groups_change_from_pass_to_pass() -> None:
    order = mixed_order([100 + row for row in range(48)], SAME, 4, 96, seed=1)
    groups = [frozenset(order[start : start + 4]) for start in range(0, 96, 4)]
    # Lengths of 100 to 147 read with 10 % of noise: without it, all 12 groups of a pass would come back in the next.
    assert set(groups[:12]).isdisjoint(groups[12:])


def test_shorter_order_is_a_prefix_of_a_longer_one() -> None:
    # A run with more steps starts as the shorter one did.
    assert mixed_order(LENGTHS, SAME, 4, 30, seed=1) == mixed_order(LENGTHS, SAME, 4, 96, seed=1)[:30]


def test_groups_of_one_are_a_plain_shuffle() -> None:
    order = mixed_order(LENGTHS, SAME, 1, 48, seed=1)
    assert sorted(order) == list(range(48))
    assert order != sorted(order, key=LENGTHS.__getitem__)


def test_steps_hold_each_kind_in_proportion() -> None:
    # 6, 4 and 2 groups of 4 rows: of every two groups in a row at least one is of refusals, half of all rows.
    order = mixed_order(LENGTHS, KINDS, 4, 96, seed=1)
    groups = [[KINDS[row] for row in order[start : start + 4]] for start in range(0, 96, 4)]
    assert all(len(set(group)) == 1 for group in groups)
    steps = [groups[start][0] + groups[start + 1][0] for start in range(0, 24, 2)]
    assert all("refuse" in step for step in steps)
    assert [sum(group[0] == kind for group in groups) for kind in ("refuse", "comply", "answer")] == [12, 8, 4]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 200))
def test_no_kind_leads_by_more_than_two_groups(kinds: list[str], group: int, num_rows: int) -> None:
    # A kind's turns are evenly spaced, so at any point it has had its share of the rows to within a group of its own;
    # another, for the kinds that are due at the same time and come first.
    order = mixed_order([10] * len(kinds), kinds, group, num_rows, seed=0)
    for kind in set(kinds):
        had, share = sum(kinds[row] == kind for row in order), kinds.count(kind) / len(kinds) * num_rows
        assert abs(had - share) <= 2 * group


def test_each_pass_holds_every_row_of_a_kind_once() -> None:
    order = mixed_order(LENGTHS, KINDS, 5, 200, seed=2)  # groups of 5 do not divide 24, 16 or 8
    for kind in set(KINDS):
        rows = [row for row in order if KINDS[row] == kind]
        n = KINDS.count(kind)
        assert sorted(rows[:n]) == [row for row in range(48) if KINDS[row] == kind]
        assert sorted(rows[n : 2 * n]) == sorted(rows[:n])
