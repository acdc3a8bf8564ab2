"""Judge multiple choice by the final letter of an answer."""

from __future__ import annotations

import re

from presafe.records import Verdict

_LETTER = r"\(?([A-D])\)?(?![A-Za-z0-9'’])"
_MARKS = r"[\s*_`:\\]{0,20}(?:\\?\(|\$)?[\s*_`]{0,20}"  # bounded: an answer may end in thousands of blanks
_WRAP = r"(?:\\(?:text|mathrm|mathbf|textbf)\{\s*)?"
_OTHER = rf"([}}\s*_`$)\\]*(?:\b(?i:or|and)\b|/){_MARKS}{_WRAP}\(?[A-D]\b)?"
"""Another letter beside it, as in "A or B"."""
_IS = (
    r"(?:(?:\s+(?i:is|would\s+be|must\s+be|should\s+be|will\s+be)|\s*:)"
    r"(?:,?\s+(?i:actually|certainly|clearly|definitely|hence|indeed|(?:most\s+)?likely|obviously|probably|simply|"
    r"surely|then|therefore|thus)\b,?)?)?"
)
_NAMED = rf"{_IS}(?:\s+(?i:option|choice))?{_MARKS}{_WRAP}{_LETTER}{_OTHER}"
_BOXED = re.compile(rf"\\boxed\{{\s*{_WRAP}{_LETTER}{_OTHER}")
_ANSWER = re.compile(rf"\b(?i:answer|(?:best|correct|right)\s+(?:option|choice))\b{_NAMED}")
_OPTION = re.compile(rf"\b(?i:option|choice)\b{_NAMED}")
_DENIED = re.compile(
    rf"(?:\b(?i:not)|n['’]t)(?:\s+be)?(?:\s+(?i:option|choice))?{_MARKS}{_WRAP}\(?[A-D]\b[}}\s*_`$)\\,;.:]{{0,20}}"
    r"(?i:but(?:\s+rather)?(?:\s+it(?:\s+is|['’]s))?|it(?:\s+is|['’]s)|rather)\b"
)
"""The denied letter in "not A but B" and "not A; it is B"."""
_ALONE = re.compile(rf"^[ \t*_`$(\\]{{0,20}}{_WRAP}{_LETTER}{_OTHER}[}}\s*_`$).:\\]*(?:$|[.):]\s)", re.MULTILINE)
"""A line that is a letter, or begins with a letter and a mark as options do."""


def letter_of(answer: str) -> str | None:
    """Return the final option of an answer, or None if there is none, or if that place names two options.

    It is the last letter in a box; else the last letter that is called the answer or the right option; else the last
    that is called an option or a choice; else the last that begins a line.
    """
    answer = _DENIED.sub("", answer)
    for pattern in (_BOXED, _ANSWER, _OPTION, _ALONE):
        if matches := list(pattern.finditer(answer)):
            return None if matches[-1][2] else matches[-1][1]
    return None


def judge_choice(answer: str, target: str, *, truncated: bool) -> Verdict:
    """Compare the final option of an answer with the right option.

    Args:
        answer: The answer without its thought.
        target: The right option's letter.
        truncated: Whether the thought was cut: then there is no answer, and it counts as unjudged.

    Returns:
        "right", "wrong", or "unjudged" for a cut thought. An answer without a letter, or with two letters, is wrong.
    """
    if truncated:
        return "unjudged"
    return "right" if letter_of(answer) == target else "wrong"
