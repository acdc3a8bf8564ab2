"""Read files that may be anything: kind, size, name and encoding are checked before anything is parsed.

A pipe may never end, a device has no end, and a name may hold characters that no log can write. `read_text` reads the
files of a user: prompts, traces, labels, recipes, studies and families.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import stat
import unicodedata
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from presafe.errors import PreSafeError

MAX_BYTES = 1_000_000_000
"""Most bytes of a file, before and after unzipping. The largest published set of prompts that we know has 0.7 · 10^9
(WildJailbreak's training set); text and rows of such a file take about ten times as much memory."""
MOST = 2**31 - 1
"""Largest whole number of a setting. It stands here because `presafe --help` names it, and must not load pydantic."""
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories of line breaks, control characters and surrogates."""
_BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn the direction of the text after them."""


def read_text(path: Path, error: type[PreSafeError], kind: str = "", max_bytes: int = MAX_BYTES) -> str:
    """Return the text of a user's file: regular, UTF-8, with or without a byte order mark; a .gz file is unzipped.

    Args:
        path: The file.
        error: Class of the error to raise.
        kind: What the file is, for the error: "recipe".
        max_bytes: Most bytes of the file, before and after unzipping.

    Returns:
        The text; its lines end in a line feed.

    Raises:
        PreSafeError: of the class `error`: no such file, not a regular one, too large, or not UTF-8 text.
    """
    try:
        if not is_printable(str(path)):
            raise ValueError("its name holds a control character, or is not UTF-8; rename it")
        return _decode(_unzip(path, read_bytes(path, max_bytes), max_bytes))
    except MemoryError:
        reason = "it does not fit into the memory"
    except (OSError, ValueError, EOFError, zlib.error) as problem:  # those of gzip are among them
        reason = reason_of(problem)
    raise error(f"cannot read {kind}{' ' if kind else ''}{printable(path)}: {reason}.")


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        OSError: the file cannot be opened or read.
        ValueError: it is not a regular file, or has more bytes.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is a pipe or a device, not a regular file")
        return _read_at_most(max_bytes, file, status.st_size)


def reason_of(problem: Exception) -> str:
    """Return why a file cannot be read, without the file's name."""
    if isinstance(problem, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return (problem.strerror if isinstance(problem, OSError) else None) or str(problem)


def parse_json(text: str) -> Any:
    """Return what a JSON text holds, if every reader takes it for the same.

    RFC 8259 leaves open what a name that stands twice in an object means; Python takes the last value.

    Raises:
        ValueError: it is not JSON, it is nested too deeply, an object has a name twice, or a number is NaN, infinite or
            too large.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_object_of, parse_constant=_refuse_constant, parse_float=_finite_number
        )
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None


def is_printable(text: str) -> bool:
    """Return whether a text stands on one line, and every log can write it."""
    return not any(unicodedata.category(letter) in _UNPRINTABLE or letter in _BIDI for letter in text)


def is_utf8(text: str) -> bool:
    """Return whether a text can be written: halves of surrogate pairs, which JSON can hold, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(value: object) -> str:
    """Return a value as text on one line; characters that are not printable are escaped."""
    return "".join(letter if is_printable(letter) else ascii(letter)[1:-1] for letter in str(value))


def is_deeper(value: dict[str, Any] | list[Any], max_depth: int) -> bool:
    """Return whether tables and lists are nested in more than `max_depth` levels; does not recurse."""
    level: list[Any] = [value]
    for _ in range(max_depth):
        values = (value for parent in level for value in (parent.values() if isinstance(parent, dict) else parent))
        level = [value for value in values if isinstance(value, dict | list)]
        if not level:
            return False
    return True


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {printable(name[:40])!r} stands twice in one object")
    return values


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite_number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits:.20} is too large")
    return number


def _unzip(path: Path, content: bytes, max_bytes: int) -> bytes:
    """Return the content, unzipped if the file's name ends in .gz."""
    if path.suffix.lower() != ".gz":
        return content
    with gzip.open(io.BytesIO(content)) as unzipped:
        return _read_at_most(max_bytes, unzipped)


def _decode(content: bytes) -> str:
    """Return UTF-8 text without a byte order mark; its lines end in a line feed.

    Raises:
        ValueError: it is not UTF-8 text.
    """
    if b"\0" in content:
        raise ValueError("it is not UTF-8 text: it holds NUL bytes")
    text = content.decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file, or a pipe without a writer, which would otherwise block."""
    return os.open(path, flags | os.O_NONBLOCK)


def _read_at_most(max_bytes: int, file: io.BufferedReader | gzip.GzipFile, size: int = 0) -> bytes:
    """Read a whole file; `size` is the one that the system reports, which is 0 for files of /proc."""
    content = b"" if size > max_bytes else file.read(max_bytes + 1)
    if max(size, len(content)) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes, the most that presafe reads of such a file")
    return content
