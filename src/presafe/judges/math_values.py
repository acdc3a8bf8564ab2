r"""Compare the final value of an answer with a reference. Parsing and comparison are math-verify's.

The choice of the text that is parsed is ours, in this order:

    the last box                       \boxed{...}, with any text before or after it
    the final statement                the text after the last "answer is" or "answer:", else the last line
    the whole answer                   as math-verify reads it: its last expression or number

First, numbers that math-verify misreads are rewritten, and denied values are removed (`notation`). A statement that
adds up ("12 apples and 3 pears, so 15") is read from its conclusion.

If the statement is a single value and not the right one, the whole answer is read, too: "42!" may be no factorial. If
it has several values ("3, 4"), the whole answer is not read, since that would choose one of them. A statement that
leaves the value open ("41 or 42", "between 3 and 5") is right only if all of its values are; other units are another
way to write the same value ("120 minutes, or 2 hours").

A box or a statement without words is an expression even without a $. Words ("Evelyn", "even", "(C)") are compared as
words, numbers in a named base ("101_2") with their base, times of day ("11:30 am") as times.
"""

from __future__ import annotations

import logging
import re
from typing import NamedTuple

from presafe.judges.notation import VALUE, plain_numbers, time_of, times_of, without_denied
from presafe.records import Verdict

_READ_CHARACTERS = 4000
"""Characters of an answer's end, or of a statement, that are parsed: parsing time is quadratic in them. Ours."""

_STATED = re.compile(r"\banswer\b(?:\s+(?:is|would be|must be))?\s*:?\s*", re.IGNORECASE)
_MARKUP = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_MARKS = " \t\n*_`$.,;:"
_BRACKETS = "()[]{}\\"
_WORDS = re.compile(r"[A-Za-z][A-Za-z ]*")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_UNIT = r"\s*([a-z]+(?:\^\{?\d\}?)?)?"
_EITHER = re.compile(
    rf"{VALUE}{_UNIT}[.,;]?\s+or\s+(?:(?:maybe|perhaps|possibly|even|else|it\s+is)\s+)*{VALUE}{_UNIT}\D*$",
    re.IGNORECASE,
)
_BETWEEN = re.compile(rf"\bbetween\s+{VALUE}{_UNIT}\s+and\s+{VALUE}{_UNIT}\D*$", re.IGNORECASE)
_ADDED_UP = re.compile(
    rf"\d[^=\n]*\band\b[^=\n]*\d[^=\n]*\b(?:so|thus|hence|therefore|making|which\s+(?:makes|is))\b[^\d=$\n-]*({VALUE}\D*)$",
    re.IGNORECASE,
)
"""Several values, and their result."""
_IN_BASE = re.compile(r"([0-9A-F]+)_\{?(\d+)\}?")


class Graded(NamedTuple):
    """A verdict, and the text that was read as the final value, or None."""

    verdict: Verdict
    read: str | None


def compare(answer: str, target: str) -> Graded:
    """Compare an answer with a reference in this process, without a limit of time or memory.

    Args:
        answer: The answer without its thought, in words, numbers or LaTeX.
        target: The reference.

    Returns:
        "right" or "wrong", with the value that was read. An answer without a number is wrong if the reference is a
        number.
    """
    from math_verify import parse, verify
    from sympy import FiniteSet

    def read(text: str) -> list[object]:
        return list(parse(text, parsing_timeout=None))

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of the missing time limit at every call
    answer = answer.replace("\\$", "").strip()  # \$ is money; a plain $ is money or begins a formula
    boxed = _last_box(answer)
    if boxed is None:
        answer = without_denied(plain_numbers(answer[-_READ_CHARACTERS:]))
    statement = plain_numbers(boxed[-_READ_CHARACTERS:]) if boxed is not None else _final_statement(answer)
    if added_up := _ADDED_UP.search(statement):
        answer = statement = added_up[1]
    vote = _plain(statement)
    if in_base := _IN_BASE.fullmatch(target.strip()):
        base = _IN_BASE.fullmatch(vote)
        right = vote == in_base[1] if base is None else base.groups() == in_base.groups()
        return Graded("right" if right else "wrong", vote)
    words = _plain(target).strip(_BRACKETS)
    if _WORDS.fullmatch(words) and vote.strip(_BRACKETS).casefold() == words.casefold():
        return Graded("right", vote)
    if (graded := _grade_time(vote, _plain(target))) is not None:
        return graded
    gold = read(f"${plain_numbers(target)}$")

    def is_right(reading: list[object]) -> bool:
        return bool(verify(gold, reading, timeout_seconds=None))

    values: list[str] = []
    if boxed is not None:
        readings = [read(f"\\boxed{{{statement}}}"), read(f"${_bare(statement)}$")]
    else:
        values = _open_values(statement)
        readings = [] if _WORD.search(_bare(statement)) else [read(f"${_bare(statement)}$")]
        has_several = any(isinstance(value, FiniteSet) and len(value) > 1 for reading in readings for value in reading)
        if not values and not has_several:
            readings.append(read(answer))
    right = any(map(is_right, readings)) or (bool(values) and all(is_right(read(f"${value}$")) for value in values))
    return Graded(
        "right" if right else "wrong", next((str(reading[0]) for reading in readings if reading), vote or None)
    )


def _grade_time(vote: str, target: str) -> Graded | None:
    """Return the verdict if the reference is a time of day, or None if it may be something else, as 3:10 may."""
    target_time, times = time_of(target), times_of(vote)
    if target_time is None or not times:
        return None
    candidates = times if re.search(r"\bor\b", vote) else times[-1:]
    if all(time.agrees(target_time) for time in candidates):
        return Graded("right", str(times[-1]))
    return Graded("wrong", str(times[-1])) if target_time.half or times[-1].half else None


def _last_box(text: str) -> str | None:
    """Return the content of the last box, which may hold nested braces, or None."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    inside = text[text.index("{", start) + 1 :]
    depth = 1
    for place, character in enumerate(inside):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return inside[:place]
    return None


def _final_statement(text: str) -> str:
    """Return the line after the last "answer is", or the last line."""
    matches = list(_STATED.finditer(text))
    rest = text[matches[-1].end() :] if matches else ""
    has_rest = bool(rest.strip(_MARKS))
    lines = [line for line in (rest if has_rest else text).strip().splitlines() if line.strip(_MARKS)]
    return (lines[0] if has_rest else lines[-1]) if lines else ""


def _open_values(statement: str) -> list[str]:
    """Return the two final values of a statement that does not choose between them, or an empty list."""
    text = statement.replace("$", "")
    pair = _EITHER.search(text) or _BETWEEN.search(text)
    if pair is None:
        return []
    first, unit, second, other_unit = pair.groups(default="")
    same_unit = not (unit and other_unit) or unit.casefold().rstrip("s") == other_unit.casefold().rstrip("s")
    return [first, second] if same_unit else []


def _plain(text: str) -> str:
    r"""Return the text without markup and marks at its ends: "\text{(C)}." and "**(C)**" give "(C)"."""
    text = _MARKUP.sub(r"\1", text)
    return re.sub(r"\s+", " ", text.strip(_MARKS))


def _bare(text: str) -> str:
    """Return an expression in the form that math-verify reads: units unwrapped, commas for "or", no $, no bold."""
    text = re.sub(r"\s+(?:or|and)\s+", ", ", _MARKUP.sub(r" \1", text))
    return text.replace("$", "").strip().strip("*`").removesuffix(".").strip()
