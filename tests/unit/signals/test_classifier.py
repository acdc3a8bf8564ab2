"""Split the teacher's decisions into those to train on and those to measure with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presafe.errors import SignalError
from presafe.signals.classifier import split_decisions

DECISIONS = [True] * 12 + [False] * 28


def test_each_class_is_split_in_the_same_share() -> None:
    # A quarter of 12 refusals is 3, of 28 answers 7.
    split = split_decisions(DECISIONS, 0.25, seed=1)
    assert sum(DECISIONS[i] for i in split.held_out) == 3
    assert sum(not DECISIONS[i] for i in split.held_out) == 7
    assert sorted(split.train + split.held_out) == list(range(40))


def test_split_depends_on_the_seed_only() -> None:
    assert split_decisions(DECISIONS, 0.25, seed=1) == split_decisions(DECISIONS, 0.25, seed=1)
    assert split_decisions(DECISIONS, 0.25, seed=1) != split_decisions(DECISIONS, 0.25, seed=2)


def test_split_is_random() -> None:
    # Decisions come in the order of their sources: taking the first of each class would keep one source only.
    held_out = split_decisions(DECISIONS, 0.25, seed=1).held_out
    assert held_out != [0, 1, 2, *range(12, 19)]
    assert held_out == sorted(held_out)


@pytest.mark.parametrize(("share", "kept"), [(0.01, 1), (0.99, 11), (0.5, 6)])
def test_both_sides_hold_each_class(share: float, kept: int) -> None:
    # Of 12 refusals: 0.12 and 11.88 would leave a side without one, so that 1 and 11 are kept.
    split = split_decisions(DECISIONS, share, seed=0)
    assert sum(DECISIONS[i] for i in split.held_out) == kept
    assert sum(DECISIONS[i] for i in split.train) == 12 - kept


@given(
    st.lists(st.booleans(), min_size=4, max_size=60).filter(lambda x: 2 <= sum(x) <= len(x) - 2),
    st.floats(0.05, 0.95),
    st.integers(0, 99),
)
def test_split_is_a_partition(refused: list[bool], share: float, seed: int) -> None:
    split = split_decisions(refused, share, seed)
    assert sorted(split.train + split.held_out) == list(range(len(refused)))
    for side in split:
        assert {refused[i] for i in side} == {True, False}


@pytest.mark.parametrize(
    ("refused", "problem"),
    [
        ([True, False, False, False], "refused 1 of 4 queries"),
        ([False] * 5, "refused 0 of 5 queries"),
        ([True, True, True, False], "answered 1 of 4 queries"),
        ([], "refused 0 of 0 queries"),
    ],
)
def test_teacher_without_both_decisions_is_an_error(refused: list[bool], problem: str) -> None:
    with pytest.raises(SignalError, match=problem) as caught:
        split_decisions(refused, 0.25, seed=0)
    assert caught.value.hint
