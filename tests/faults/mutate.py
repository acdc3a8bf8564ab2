"""Seeded mutators: the same generator of random numbers gives the same damage."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

HOSTILE_TEXTS = (
    "",
    " ",
    "plain",
    "two words",
    "a,b",
    'say "hello"',
    "line one\nline two",
    "tab\there",
    "caf\u00e9 \u4f60\u597d \U0001f44d\U0001f3fd",
    "\u05e9\u05dc\u05d5\u05dd",
    "\u202ereversed",
    "nul\0",
    "esc\x1b[31m",
    "[/nope]",
    "{{ 7 * 7 }}",
    "<script>1</script>",
    "../../up",
    "C:\\path",
    "=1+1",
    "'quoted'",
    "# comment",
    "null",
    "NaN",
    "true",
    "\ufeff",
    "\u2028",
    "<think>\n</think>",
    "<|im_end|>",
    "x" * 3_000,
)
HOSTILE_VALUES: tuple[Any, ...] = (
    *HOSTILE_TEXTS,
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**70),
    10**400,
    0.5,
    -0.0,
    1.0,
    1.5,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    [],
    {},
    [[]],
    [1, "a", None],
    {"": 0},
    {"text": "inner"},
    [{"role": "user", "content": "inner"}],
)
_BYTES = (
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\n",
    b"\r",
    b'"',
    b"'",
    b",",
    b"\\",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"=",
    b"-",
    b".",
    b"#",
    b"NaN",
    b"Infinity",
    b"1e999",
    b"-1",
    b"9" * 30,
    b"9" * 5_000,
    b"null",
    b"true",
    b"[" * 2_000,
    b'{"a":' * 500,
    b"\xed\xa0\x80",
    b"\xe2\x80\xa8",
)


def damage(data: bytes, rng: random.Random, times: int | None = None) -> bytes:
    """Return bytes with one to three changes: flipped bits, cuts, insertions, moves, repetitions, zeros."""
    for _ in range(times or rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(_DAMAGES)(data, rng)
    return data


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return b"\1"
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def _cut_end(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _insert(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.choice(_BYTES) + data[place:]


def _remove(data: bytes, rng: random.Random) -> bytes:
    begin, end = _range(data, rng)
    return data[:begin] + data[end:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    begin, end = _range(data, rng)
    return data[:end] + data[begin:end] * rng.choice((1, 2, 50)) + data[end:]


def _zero(data: bytes, rng: random.Random) -> bytes:
    begin, end = _range(data, rng)
    return data[:begin] + bytes(end - begin) + data[end:]


def _swap(data: bytes, rng: random.Random) -> bytes:
    begin, end = _range(data, rng)
    middle = rng.randint(begin, end)
    return data[:begin] + data[middle:end] + data[begin:middle] + data[end:]


def _swap_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


_DAMAGES = (_flip, _cut_end, _insert, _insert, _remove, _repeat, _zero, _swap, _swap_lines)


def _range(data: bytes, rng: random.Random) -> tuple[int, int]:
    begin = rng.randrange(len(data) + 1)
    return begin, min(len(data), begin + rng.choice((1, 1, 2, 8, 64, 1024)))


def change_json(value: Any, rng: random.Random, values: Sequence[Any] = HOSTILE_VALUES) -> Any:
    """Return JSON with one part replaced, removed, renamed, added, or nested deeper."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        what = rng.randrange(10)
        if what == 0:
            return {name: part for name, part in value.items() if name != key}
        if what == 1:
            return {(rng.choice(HOSTILE_TEXTS) if name == key else name): part for name, part in value.items()}
        if what == 2:
            return value | {rng.choice(HOSTILE_TEXTS): rng.choice(values)}
        return value | {key: change_json(value[key], rng, values)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        place, what = rng.randrange(len(value)), rng.randrange(10)
        if what == 0:
            return value[:place] + value[place + 1 :]
        if what == 1:
            return value[: place + 1] + value[place:]
        return [*value[:place], change_json(value[place], rng, values), *value[place + 1 :]]
    if rng.random() < 0.05:
        for _ in range(rng.choice((1, 3, 40, 150))):
            value = [value] if rng.random() < 0.5 else {"in": value}
        return value
    return rng.choice(values)


def json_bytes(value: Any, rng: random.Random) -> bytes:
    """Return JSON as bytes, in one of several spellings; now and then with a name twice."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, None, 1)))
    if rng.random() < 0.03 and text.startswith("{") and len(text) > 4:
        text = text[:-1].rstrip() + "," + text[1:]
    return text.encode(errors="surrogatepass")
