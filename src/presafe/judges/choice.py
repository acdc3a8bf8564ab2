"""The judge of multiple choice: which option's letter does an answer end on?"""

from __future__ import annotations

import re

from presafe.records import Verdict

_LETTER = r"\(?([A-D])\)?(?![A-Za-z0-9'’])"
_MARKS = r"[\s*_`:\\]*(?:\\?\(|\$)?[\s*_`]*"
_BOXED = re.compile(r"\\boxed\{\s*(?:\\(?:text|mathrm|mathbf|textbf)\{)?\s*" + _LETTER)
_SAID = re.compile(
    rf"\b(?i:answer|option|choice)\b(?:\s+(?i:is|would\s+be|must\s+be|should\s+be|will\s+be)|\s*:)?"
    rf"(?:\s+(?i:option|choice))?{_MARKS}{_LETTER}"
)
_ALONE = re.compile(rf"^[\s*_`$(]*{_LETTER}[\s*_`$).:]*(?:$|[.):]\s)", re.MULTILINE)
"""A line that is a letter, or opens with one and a mark as the options do."""


def letter_of(answer: str) -> str | None:
    """The option an answer ends on: the last letter in a box, else the last that is called the answer, an option or a
    choice, else the last that opens a line of its own. None where there is none."""
    for pattern in (_BOXED, _SAID, _ALONE):
        if found := pattern.findall(answer):
            return str(found[-1])
    return None


def judge_choice(answer: str, target: str, *, truncated: bool) -> Verdict:
    """Compare the option an answer ends on with the right one.

    Args:
        answer: The answer without its thought.
        target: The right option's letter.
        truncated: Whether the thought was cut off: then there is no answer, and it counts as unjudged.

    Returns:
        "right", "wrong", or "unjudged" for a truncated thought. An answer without a letter is wrong.
    """
    if truncated:
        return "unjudged"
    return "right" if letter_of(answer) == target else "wrong"
