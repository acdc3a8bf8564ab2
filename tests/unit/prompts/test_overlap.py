"""Whether two texts are the same or nearly the same, on cases worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presafe.prompts.overlap import fold, jaccard, overlaps

TEN = "one two three four five six seven eight nine ten"


def test_fold_drops_case_punctuation_and_blanks() -> None:
    assert fold("  How do I\tmake TEA — quickly?! ") == "how do i make tea quickly"


def test_fold_folds_case_beyond_ascii() -> None:
    assert fold("STRASSE") == fold("Straße") == "strasse"


def test_jaccard_is_shared_over_all() -> None:
    # {a, b, c} and {b, c, d} share b and c of a, b, c, d: 2 / 4.
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5
    assert jaccard(frozenset("ab"), frozenset("cd")) == 0.0
    assert jaccard(frozenset(), frozenset()) == 1.0


def test_same_text_overlaps_whatever_its_case_and_punctuation() -> None:
    assert overlaps(["Boil an egg.", "Fry a fish"], ["Grill a leek", "boil AN egg!"]) == [(0, 1)]


def test_ten_words_with_one_other_are_near_with_two_are_not() -> None:
    # One differs: 9 shared of 11, 0.818. Two differ: 8 shared of 12, 0.667.
    one = TEN.replace("ten", "eleven")
    two = one.replace("nine", "twelve")
    assert overlaps([TEN], [one, two], near=0.7) == [(0, 0)]


def test_the_bound_itself_counts_as_near() -> None:
    # {a, b} and {a, b, c, d} share 2 of 4.
    assert overlaps(["a b"], ["a b c d"], near=0.5) == [(0, 0)]
    assert overlaps(["a b"], ["a b c d"], near=0.51) == []


def test_repeated_words_count_once() -> None:
    # Both are the set {no, more}: the measure reads words, not their number.
    assert overlaps(["no no no more"], ["no more"]) == [(0, 0)]


def test_every_pair_is_reported_in_order() -> None:
    assert overlaps(["a b", "c d"], ["c d", "a b", "a b"]) == [(0, 1), (0, 2), (1, 0)]


TEXTS = st.lists(st.text(alphabet="ab c", max_size=8), max_size=5)


@given(TEXTS, TEXTS, st.sampled_from([0.3, 0.5, 0.7, 1.0]))
def test_overlap_is_symmetric(left: list[str], right: list[str], near: float) -> None:
    there, back = overlaps(left, right, near), overlaps(right, left, near)
    assert sorted(there) == sorted((i, j) for j, i in back)


@given(st.text(alphabet="abc ", min_size=1).filter(lambda text: text.strip() != ""))
def test_a_text_always_overlaps_with_itself(text: str) -> None:
    assert overlaps([text], [text.upper() + "!"], near=1.0) == [(0, 0)]


def test_no_words_at_all_is_no_error() -> None:
    assert overlaps(["?!"], ["tea"]) == []
    assert overlaps([], ["tea"]) == []


@pytest.mark.parametrize("text", ["Can I kill a Python process?", "What is 12 + 34?"])
def test_other_questions_with_shared_small_words_are_not_near(text: str) -> None:
    # Shares "can i a" (3 of 9 words) with the first, and nothing with the second.
    assert overlaps([text], ["Can I keep a cat indoors?"]) == []
