"""Right, wrong or unjudged: the value of an answer against a reference."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from presafe.judges.math import judge_math


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("42", "42"),
        ("The answer is 42.", "42"),
        ("The answer is **42**.", "42"),
        ("So 12 + 30 = 42.", "42"),
        ("12 + 30 = 42", "42"),
        ("First it looks like 41, but it is 42.", "42"),
        ("Mia has 42 apples now.", "42"),
        ("The total is $73.", "73"),
        ("The total is $5 + $68 = $73.", "73"),
        ("\\boxed{42}", "42"),
        ("x = 42", "42"),
        ("42.0", "42"),
        ("84/2", "42"),
        ("1,234", "1234"),
        ("-5", "-5"),
        ("\\frac{1}{2}", "0.5"),
    ],
)
def test_the_same_value_is_right(answer: str, target: str) -> None:
    assert judge_math(answer, target, truncated=False) == "right"


@pytest.mark.parametrize(
    ("answer", "target"),
    [("41", "42"), ("4", "42"), ("142", "42"), ("42", "-42"), ("The answer is 42, not 43.", "42.5"), ("5", "-5")],
)
def test_another_value_is_wrong(answer: str, target: str) -> None:
    assert judge_math(answer, target, truncated=False) == "wrong"


@pytest.mark.parametrize("answer", ["", "I do not know.", "forty-two"])
def test_an_answer_without_a_number_is_wrong(answer: str) -> None:
    assert judge_math(answer, "42", truncated=False) == "wrong"


@pytest.mark.parametrize("answer", ["42", "", "41"])
def test_a_cut_thought_is_unjudged(answer: str) -> None:
    assert judge_math(answer, "42", truncated=True) == "unjudged"


@pytest.mark.parametrize("answer", ["9^9^9^9", "$\\binom{10000000}{5000000}$"])
def test_an_answer_too_large_to_work_out_is_unjudged_in_time(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    # Failed first: the judge had no time limit and worked on these for as long as anyone waited.
    monkeypatch.setattr("presafe.judges.math._LIMIT_S", 1.0)
    start = time.monotonic()
    assert judge_math(answer, "42", truncated=False) == "unjudged"
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("answer", "target", "verdict"),
    [
        ("It is $2^{10}$", "1024", "right"),
        ("$2^{10}$", "1000", "wrong"),
        ("The answer is 42!", "42", "right"),
        ("The answer is\n42!\n", "43", "wrong"),
    ],
)
def test_powers_and_factorials_of_ordinary_size_are_worked_out(answer: str, target: str, verdict: str) -> None:
    assert judge_math(answer, target, truncated=False) == verdict


def test_it_judges_outside_the_main_thread() -> None:
    # Scorers do; there math-verify's own time limit would raise.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(judge_math, "So it is 42.", "42", truncated=False).result() == "right"
