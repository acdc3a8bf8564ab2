"""Compare the value that an answer ends on with a reference. Parsing and comparison are math-verify's.

What is read of an answer, in this order, is ours:

    the last box                       \\boxed{...}, whatever stands before or after it
    the final statement                what follows the last "answer is" or "answer:", else the last line
    the whole answer                   as math-verify reads it: its last expression or number

Before that, numbers are rewritten where math-verify misreads them, and values that a statement denies are left out
(`notation`). A statement that adds up ("12 apples and 3 pears, so 15") is read from its conclusion.

The whole answer is read, too, where the statement is one value and not the right one: "42!" may be no factorial. It is
not where the statement has several ("3, 4"), of which that reading would take one. A statement that leaves it open
("41 or 42", "between 3 and 5") is right where each of its values is; other units are another way to say one value
("120 minutes, or 2 hours").

A box or a statement without words is an expression even where no $ says so. Words ("Evelyn", "even", "(C)") are
compared as words, numbers in a named base ("101_2") with their base, times of the day ("11:30 am") as times.
"""

from __future__ import annotations

import logging
import re
from typing import NamedTuple

from presafe.judges.notation import VALUE, plain_numbers, time_of, times_of, without_denied
from presafe.records import Verdict

_READ_CHARACTERS = 4000
"""How much of an answer's end, and of one statement, is parsed: parsers take the square of the length. Ours."""

_STATED = re.compile(r"\banswer\b(?:\s+(?:is|would be|must be))?\s*:?\s*", re.IGNORECASE)
_MARKUP = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_DRESS = " \t\n*_`$.,;:"
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
"""Several values, and what they come to."""
_IN_BASE = re.compile(r"([0-9A-F]+)_\{?(\d+)\}?")


class Graded(NamedTuple):
    """A verdict, and what was read as the final answer; None where nothing was."""

    verdict: Verdict
    read: str | None


def compare(answer: str, target: str) -> Graded:
    """Compare an answer with a reference, in this process and without a limit of time or memory.

    Args:
        answer: The answer without its thought, in words, numbers or LaTeX.
        target: The reference.

    Returns:
        "right" or "wrong". An answer without a number is wrong where the reference is one.
    """
    from math_verify import parse, verify
    from sympy import FiniteSet

    def read(text: str) -> list[object]:
        return list(parse(text, parsing_timeout=None))

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of the missing time limit at every call
    answer = answer.replace("\\$", "").strip()  # the sign of money; $ alone may be one or open a formula
    boxed = _last_box(answer)
    if boxed is None:
        answer = without_denied(plain_numbers(answer[-_READ_CHARACTERS:]))
    said = plain_numbers(boxed[-_READ_CHARACTERS:]) if boxed is not None else _final_statement(answer)
    if added_up := _ADDED_UP.search(said):
        answer = said = added_up[1]
    vote = _plain(said)
    if in_base := _IN_BASE.fullmatch(target.strip()):
        base = _IN_BASE.fullmatch(vote)
        right = vote == in_base[1] if base is None else base.groups() == in_base.groups()
        return Graded("right" if right else "wrong", vote)
    words = _plain(target).strip(_BRACKETS)
    if _WORDS.fullmatch(words) and vote.strip(_BRACKETS).casefold() == words.casefold():
        return Graded("right", vote)
    if (timed := _by_time(vote, _plain(target))) is not None:
        return timed
    gold = read(f"${plain_numbers(target)}$")

    def is_right(reading: list[object]) -> bool:
        return bool(verify(gold, reading, timeout_seconds=None))

    values: list[str] = []
    if boxed is not None:
        parsed = [read(f"\\boxed{{{said}}}"), read(f"${_bare(said)}$")]
    else:
        values = _left_open(said)
        parsed = [] if _WORD.search(_bare(said)) else [read(f"${_bare(said)}$")]
        if not values and not any(isinstance(value, FiniteSet) and len(value) > 1 for some in parsed for value in some):
            parsed.append(read(answer))
    right = any(map(is_right, parsed)) or (bool(values) and all(is_right(read(f"${value}$")) for value in values))
    return Graded("right" if right else "wrong", next((str(some[0]) for some in parsed if some), vote or None))


def _by_time(vote: str, target: str) -> Graded | None:
    """The verdict where the reference is a time of the day; None where it may be something else, as 3:10 may."""
    wanted, times = time_of(target), times_of(vote)
    if wanted is None or not times:
        return None
    read = times if re.search(r"\bor\b", vote) else times[-1:]
    if all(time.agrees(wanted) for time in read):
        return Graded("right", str(times[-1]))
    return Graded("wrong", str(times[-1])) if wanted.half or times[-1].half else None


def _last_box(text: str) -> str | None:
    """What stands in the last box; braces may nest."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    inside = text[text.index("{", start) + 1 :]
    depth = 1
    for place, sign in enumerate(inside):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth == 0:
            return inside[:place]
    return None


def _final_statement(text: str) -> str:
    stated = list(_STATED.finditer(text))
    rest = text[stated[-1].end() :] if stated else ""
    lines = [line for line in ((rest.strip(_DRESS) and rest) or text).strip().splitlines() if line.strip(_DRESS)]
    return (lines[0] if rest.strip(_DRESS) else lines[-1]) if lines else ""


def _left_open(statement: str) -> list[str]:
    """The two values that a statement ends on without choosing one; none where it chooses."""
    text = statement.replace("$", "")
    pair = _EITHER.search(text) or _BETWEEN.search(text)
    if pair is None:
        return []
    first, unit, second, other_unit = pair.groups(default="")
    same = not (unit and other_unit) or unit.casefold().rstrip("s") == other_unit.casefold().rstrip("s")
    return [first, second] if same else []


def _plain(text: str) -> str:
    """The words without their dress: "\\text{(C)}." and "**(C)**" are "(C)"."""
    text = _MARKUP.sub(r"\1", text)
    return re.sub(r"\s+", " ", text.strip(_DRESS))


def _bare(text: str) -> str:
    """An expression as math-verify reads one: units unwrapped, "or" and "and" as commas, no $ and no bold."""
    text = re.sub(r"\s+(?:or|and)\s+", ", ", _MARKUP.sub(r" \1", text))
    return text.replace("$", "").strip().strip("*`").removesuffix(".").strip()
