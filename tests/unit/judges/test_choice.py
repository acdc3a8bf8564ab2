"""Judge multiple choice by the final letter."""

from __future__ import annotations

import pytest

from presafe.judges.choice import judge_choice, letter_of


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        (r"\boxed{C}", "C"),
        (r"So it is $\boxed{\text{B}}$.", "B"),
        (r"\boxed{A) 12 m}", "A"),
        (r"First \boxed{A}. No, wait: \boxed{D}", "D"),
        ("The answer is B.", "B"),
        ("Answer: **D**", "D"),
        ("**Answer: (A)**", "A"),
        ("The correct answer is:\n\n**C. 10 pm**", "C"),
        ("The correct option is (B), because option A ignores friction. The answer is B.", "B"),
        ("A is wrong. So the answer is D", "D"),
        ("The answer cannot be A. Final answer: C", "C"),
        ("C", "C"),
        ("It must be the third.\n\n(C)\n", "C"),
        ("B) 12 m", "B"),
        ("The answer is C. Option A is wrong, since it ignores friction.", "C"),
        ("The answer might seem to be option A. The correct option is D. Option B came close.", "D"),
        ("One would think the answer is A. So the right choice is D", "D"),
        ("The answer is clearly B", "B"),
        ("The answer is, therefore, **B**.", "B"),
        ("The answer is hardly B", None),
        (r"$\mathbf{C}$", "C"),
        (r"\(\text{(C)}\)", "C"),
        (r"The answer is $\mathbf{C}$, as $\mathbf{A}$ is not.", "C"),
        ("The answer is not A but B.", "B"),
        ("The correct option is not (C); it is (D).", "D"),
        ("The answer isn't **A**, but rather **B**.", "B"),
        ("The answer is not option A but option C.", "C"),
        ("The answer is B, not A.", "B"),
        ("The answer is not A.", None),
        ("The answer is A or B.", None),
        (r"Option C. The answer is $\text{A}$ or $\text{B}$", None),
        (r"\boxed{A/B}", None),
        ("A or B", None),
        ("A cat sat on it.", None),
        ("The answer is clearly unknown.", None),
        ("I do not know.", None),
        pytest.param("The answer" + " " * 50_000, None, id="many blanks"),
        pytest.param("\n" * 50_000, None, id="many lines"),
        ("", None),
    ],
)
def test_letter_of_returns_the_final_option(answer: str, letter: str | None) -> None:
    assert letter_of(answer) == letter


def test_judge_choice_compares_the_letter() -> None:
    assert judge_choice("The answer is B.", "B", truncated=False) == "right"
    assert judge_choice("The answer is B.", "C", truncated=False) == "wrong"
    assert judge_choice("I do not know.", "C", truncated=False) == "wrong"
    assert judge_choice("B", "B", truncated=True) == "unjudged"
