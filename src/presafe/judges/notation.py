r"""Rewrite numbers that math-verify misreads: mixed numbers, groups of digits, denied values, times of day.

Only notation with a single meaning is rewritten (ours). "2 2/3" is two and two thirds and "1\,000" is a thousand; but
"1.000", "2-2/3" and "2 and 2/3" have two meanings each and stay unchanged.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import NamedTuple

VALUE = r"((?:[a-z]\s*=\s*)?(?:\\[dt]?frac\{[^{}]*\}\{[^{}]*\}|-?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?%?))"
"""A number or a fraction, perhaps with its variable, as a single group."""

_SIGNS = str.maketrans({"−": "-", "⁄": "/", "²": "^2", "³": "^3"})
_SPACES = "\u00a0\u2007\u2009\u202f"
_THIN = rf"(?:\\[,;:! ]|~|[{_SPACES}])"
_GROUPED = re.compile(
    rf"(?<![\w.,^\\])[1-9]\d{{0,2}}(?:(?:{_THIN}\d{{3}})+|(?:[ '’]\d{{3}})+)(?![\w'’]|[.,]\d{{3}})"
    rf"|(?<=\d\.)\d{{3}}(?:{_THIN}\d{{3}})*{_THIN}\d{{1,3}}(?!\w)"
)
r"""1\,000 and 1 000 000 and 1'000; after the point 3.141\,592\,65."""

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
    """A time of day; `half` is "a", "p", or None if it is not given."""

    hour: int
    minute: int
    second: int
    half: str | None

    def agrees(self, other: Time) -> bool:
        """Return whether both can be the same time: 11:30 with 11:30 am, and 23:30 with 11:30 pm."""
        if self[1:3] != other[1:3]:
            return False
        if self.half and other.half:
            return (self.hour % 12, self.half) == (other.hour % 12, other.half)
        with_half, without = (self, other) if self.half else (other, self)
        return with_half.hour == without.hour or (with_half.half == "p" and with_half.hour % 12 + 12 == without.hour)

    def __str__(self) -> str:
        second = f":{self.second:02}" if self.second else ""
        return f"{self.hour}:{self.minute:02}{second}{f' {self.half}m' if self.half else ''}"


def plain_numbers(text: str) -> str:
    """Return the text with grouped, scientific and mixed numbers as plain numbers and fractions."""
    text = text.translate(_SIGNS)
    text = _VULGAR.sub(lambda match: " " + unicodedata.normalize("NFKC", match[1]).replace("⁄", "/"), text)
    text = _GROUPED.sub(lambda match: re.sub(r"\D", "", match[0]), text)
    text = _SCIENTIFIC.sub(lambda match: f"{Decimal(match[0]):f}", text)
    text = _TIMES_TEN.sub(" × ", text)
    return _MIXED.sub(_improper, _NEGATIVE.sub("-", text))


def _improper(match: re.Match[str]) -> str:
    """Return a mixed number as one fraction without its percent sign; any other match stays unchanged."""
    integer = int(match[1])
    top, bottom = (int(number) for number in match.groups()[1:] if number is not None)
    if not 0 < top < bottom:
        return match[0]
    numerator = integer * bottom + top
    return f"\\frac{{{numerator}}}{{{bottom}}}" if "frac" in match[0] else f"{numerator}/{bottom}"


def without_denied(text: str) -> str:
    """Return the text without denied values: the 7 of "not 7 but 8" and of "8, not 7"."""
    return _DENIED.sub("", text)


def times_of(text: str) -> list[Time]:
    """Return every time of day in the text."""
    return [
        Time(int(match[1]), int(match[2]), int(match[3] or 0), (match[4] or "").lower() or None)
        for match in _TIME.finditer(text)
        if int(match[1]) <= 24
    ]


def time_of(text: str) -> Time | None:
    """Return the time if the text is nothing else, or None."""
    return times_of(text)[0] if _TIME.fullmatch(text.strip().rstrip(".")) and times_of(text) else None
