"""Rewrite what math-verify misreads in numbers: mixed numbers, groups of digits, denied values, times of the day.

Only notation with one meaning is rewritten (ours). "2 2/3" is two and two thirds and "1\\,000" is a thousand; but
"1.000", "2-2/3" and "2 and 2/3" have two readings each and stay as they are.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import NamedTuple

VALUE = r"((?:[a-z]\s*=\s*)?(?:\\[dt]?frac\{[^{}]*\}\{[^{}]*\}|-?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?%?))"
"""A number or a fraction, perhaps with the letter that it stands for, as one group."""

_SIGNS = str.maketrans({"−": "-", "⁄": "/", "²": "^2", "³": "^3"})
_SPACES = "\u00a0\u2007\u2009\u202f"
_THIN = rf"(?:\\[,;:! ]|~|[{_SPACES}])"
_GROUPED = re.compile(
    rf"(?<![\w.,^\\])[1-9]\d{{0,2}}(?:(?:{_THIN}\d{{3}})+|(?:[ '’]\d{{3}})+)(?![\w'’]|[.,]\d{{3}})"
    rf"|(?<=\d\.)\d{{3}}(?:{_THIN}\d{{3}})*{_THIN}\d{{1,3}}(?!\w)"
)
"""1\\,000 and 1 000 000 and 1'000; after the point 3.141\\,592\\,65."""

_SCIENTIFIC = re.compile(r"(?<![\w.,])\d{1,9}(?:\.\d{1,15})?[eE][+-]?\d{1,2}(?!\w|\.\d)")
_TIMES_TEN = re.compile(r"(?<=\d)\s?x\s?(?=10\^)")
_NEGATIVE = re.compile(r"(?<!\d )\b(?:negative|minus)\s+(?=\d|\\[dt]?frac)", re.IGNORECASE)
_VULGAR = re.compile(r" ?([¼-¾⅐-⅞])")
_INTEGER = r"(?:\{\s*(\d{1,9})\s*\}|(\d))"
_MIXED = re.compile(
    rf"(?<![\w.,/^}})\\])(?<!/ )(\d{{1,9}})"
    rf"(?:(?: |{_THIN}){{1,3}}(\d{{1,9}})/(\d{{1,9}})(?!\w|[/^]|[.,]\d)(?:\s?\\?%)?"
    rf"|(?: |{_THIN}){{0,3}}\\[dtc]?frac\s*{_INTEGER}\s*{_INTEGER}(?!\w|\^)(?:\s?\\?%)?)"
)
_DENIED = re.compile(
    r",?(?:\s*\b(?:and|but))?(?:\s*\b(?:not|never|instead\s+of|rather\s+than)|n['’]t)(?:\s+(?:be|equal)(?:\s+to)?)?"
    rf"\s+(?:\\?\$|\\\()?{VALUE}(?:\$|\\\))?(?:\s*[,;:]?\s*\bbut\b(?:\s+(?:rather|actually)\b)?)?",
    re.IGNORECASE,
)
_TIME = re.compile(r"(?<![\d:.])(\d{1,2}):([0-5]\d)(?::([0-5]\d))?(?![\d:])(?:\s*([ap])\.?\s?m\b)?", re.IGNORECASE)


class Time(NamedTuple):
    """A time of the day; `half` is "a", "p", or None where it is not told."""

    hour: int
    minute: int
    second: int
    half: str | None

    def agrees(self, other: Time) -> bool:
        """Whether both can be the same time: 11:30 with 11:30 am, and 23:30 with 11:30 pm."""
        if self[1:3] != other[1:3]:
            return False
        if self.half and other.half:
            return (self.hour % 12, self.half) == (other.hour % 12, other.half)
        told, open_ = (self, other) if self.half else (other, self)
        return told.hour == open_.hour or (told.half == "p" and told.hour % 12 + 12 == open_.hour)

    def __str__(self) -> str:
        second = f":{self.second:02}" if self.second else ""
        return f"{self.hour}:{self.minute:02}{second}{f' {self.half}m' if self.half else ''}"


def plain_numbers(text: str) -> str:
    """Return the text with grouped, scientific and mixed numbers as plain numbers and fractions."""
    text = text.translate(_SIGNS)
    text = _VULGAR.sub(lambda found: " " + unicodedata.normalize("NFKC", found[1]).replace("⁄", "/"), text)
    text = _GROUPED.sub(lambda found: re.sub(r"\D", "", found[0]), text)
    text = _SCIENTIFIC.sub(lambda found: f"{Decimal(found[0]):f}", text)
    text = _TIMES_TEN.sub(" × ", text)
    return _MIXED.sub(_improper, _NEGATIVE.sub("-", text))


def _improper(found: re.Match[str]) -> str:
    """One fraction for a whole number and a fraction below 1, a percent sign dropped; anything else stays."""
    whole = int(found[1])
    top, bottom = (int(number) for number in found.groups()[1:] if number is not None)
    if not 0 < top < bottom:
        return found[0]
    return f"\\frac{{{whole * bottom + top}}}{{{bottom}}}" if "frac" in found[0] else f"{whole * bottom + top}/{bottom}"


def without_denied(text: str) -> str:
    """Return the text without the values that it says are not the answer: the 7 of "not 7 but 8" and of "8, not 7"."""
    return _DENIED.sub("", text)


def times_of(text: str) -> list[Time]:
    """Return every time of the day in the text."""
    return [
        Time(int(found[1]), int(found[2]), int(found[3] or 0), (found[4] or "").lower() or None)
        for found in _TIME.finditer(text)
        if int(found[1]) <= 24
    ]


def time_of(text: str) -> Time | None:
    """Return the time where the whole text is one."""
    return times_of(text)[0] if _TIME.fullmatch(text.strip().rstrip(".")) and times_of(text) else None
