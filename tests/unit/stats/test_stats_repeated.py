"""Safe@k, pass@k and maj@k, worked out by hand."""

from __future__ import annotations

from itertools import combinations

import pytest

from presafe.stats.repeated import cons_safe_at_k, maj_at_k, pass_at_k, safe_at_k


@pytest.mark.parametrize(
    ("safe", "all_safe", "most_safe"),
    [
        ([True, True, True, True], True, True),
        ([True, True, True, False], False, True),
        ([True, True, False, False], False, True),  # half is enough: SafeChain asks for at least k/2
        ([True, False, False], False, False),
        ([True, True, None], None, True),  # the third decides on all, not on most
        ([True, False, None], False, None),
        ([True, None, None, None], None, None),  # 1 to 4 of 4
        ([False, False, False, None], False, False),
        ([None, None], None, None),
    ],
)
def test_safe_and_cons_safe_at_k(safe: list[bool | None], all_safe: bool | None, most_safe: bool | None) -> None:
    assert safe_at_k(safe) is all_safe
    assert cons_safe_at_k(safe) is most_safe


def test_pass_at_k_by_hand() -> None:
    assert pass_at_k(5, 0, 3) == 0
    assert pass_at_k(5, 5, 1) == 1
    assert pass_at_k(5, 2, 1) == pytest.approx(0.4)
    # of C(4, 2) = 6 pairs, those without the one right answer are C(3, 2) = 3
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)
    assert pass_at_k(4, 1, 4) == 1


@pytest.mark.parametrize("n", [1, 4, 6])
def test_pass_at_k_counts_draws_with_a_right_answer(n: int) -> None:
    for c in range(n + 1):
        for k in range(1, n + 1):
            draws = list(combinations([i < c for i in range(n)], k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_impossible_counts_raise_a_value_error(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"n = {n}, c = {c}, k = {k}"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("votes", "value"),
    [
        ([("7", True), ("7", True), ("5", False)], 1),
        ([("7", True), ("5", False), ("5", False)], 0),
        ([("1/2", True), ("0.5", True), ("5", False)], 1),  # written in two ways, one answer
        ([("7", True), ("5", False)], 0.5),
        ([("7", True), ("5", False), ("6", False)], 1 / 3),
        ([("7", True), (None, False), (None, False)], 1),  # no answer is no vote
        ([(None, False), (None, False)], 0),
        ([], 0),
    ],
)
def test_maj_at_k(votes: list[tuple[str | None, bool]], value: float) -> None:
    assert maj_at_k(votes) == pytest.approx(value)
