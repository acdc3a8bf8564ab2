"""Independent readers, and the comparison of what they read with what the product took."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json

from faults.cases import Fault


def need(holds: bool, rule: str, detail: object = "") -> None:
    """Check an oracle.

    Raises:
        Fault: it does not hold.
    """
    if not holds:
        raise Fault(rule, detail)


def second_json(text: str, *, allows_nan: bool = False, names: frozenset[str] | None = None) -> Any:
    """Return JSON as pydantic's parser reads it, which shares no code with Python's.

    Args:
        text: The JSON.
        allows_nan: Whether NaN and Infinity may stand in it.
        names: Names that may stand once in an object; None means all.

    Raises:
        Fault: it is not JSON, or an object has a name twice.
    """
    try:
        value = from_json(text, allow_inf_nan=allows_nan)
    except ValueError as error:
        is_surrogate = "\\ud" in text.lower() and names is not None  # half of a pair, in a part that nobody reads
        if "hex escape" in str(error) and not is_surrogate:
            raise Fault("half of a surrogate pair was accepted", f"{error}: {text[:200]}") from None
        if not is_surrogate and "number out of range" not in str(error):
            raise Fault("what is not JSON was accepted", f"{error}: {text[:200]}") from None
        value = python_json(text)
    twice = _names_twice(text)
    need(not (twice if names is None else twice & names), "a name that stands twice in an object was accepted", twice)
    return value


def python_json(text: str) -> Any:
    """Return JSON as Python reads it; numbers with a point or of very many digits as they are written."""
    return json.loads(text, parse_float=str, parse_int=lambda digits: int(digits) if len(digits) <= 4300 else digits)


def _names_twice(text: str) -> set[str]:
    twice: set[str] = set()

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice.update(name for name, number in Counter(name for name, _ in pairs).items() if number > 1)
        return dict(pairs)

    json.loads(text, object_pairs_hook=note, parse_int=str)
    return twice


def need_same(read: Any, taken: Any, rule: str, *, is_exact: bool = False) -> None:
    """Check that all that a file says was taken as it is written: `read` is part of `taken`.

    Args:
        read: What an independent reader sees.
        taken: What the product took, such as a record; it may have more keys, which are defaults.
        rule: The rule's text where they differ.
        is_exact: Whether it may not.

    Raises:
        Fault: they differ.
    """
    for place in _differences(read, taken, "", is_exact):
        raise Fault(rule, place)


def _differences(read: Any, taken: Any, place: str, is_exact: bool) -> Iterator[str]:
    if isinstance(taken, BaseModel):
        taken = dict(taken)  # its fields: a dump leaves out some that have their default
    if isinstance(read, dict) and isinstance(taken, dict):
        for key in read:
            if key not in taken:
                yield f"{place}.{key}: {read[key]!r:.200} was left out"
            else:
                yield from _differences(read[key], taken[key], f"{place}.{key}", is_exact)
        if is_exact and (more := taken.keys() - read.keys()):
            yield f"{place}: {sorted(more)[0]} was added"
    elif isinstance(read, list) and isinstance(taken, list | tuple | set | frozenset):
        if len(read) != len(taken):
            yield f"{place}: {len(read)} entries became {len(taken)}"
        for number, (one, other) in enumerate(zip(read, taken, strict=False)):
            yield from _differences(one, other, f"{place}.{number}", is_exact)
    elif not _is_same(read, taken):
        yield f"{place}: {read!r:.200} became {taken!r:.200}"


def _is_same(read: Any, taken: Any) -> bool:
    if isinstance(taken, Enum):
        taken = taken.value
    if isinstance(taken, PurePath) and isinstance(read, str):
        return PurePath(read) == taken
    if isinstance(read, bool) or isinstance(taken, bool) or read is None or taken is None:
        return read is taken
    if isinstance(read, int | float) and isinstance(taken, int | float):
        if isinstance(read, int) and isinstance(taken, float):  # a number without a point, in the place of a float
            return float(str(read)) == taken  # beyond 1.8e308 infinite, as every reader of JSON has it
        return read == taken or (read != read and taken != taken)
    return type(read) is type(taken) and bool(read == taken)


def need_finite_numbers(value: Any, rule: str) -> None:
    """Check that no number in a value is NaN or infinite.

    Raises:
        Fault: one is.
    """
    level = [value]
    while level:
        part = level.pop()
        if isinstance(part, dict):
            level += part.values()
        elif isinstance(part, list | tuple):
            level += part
        elif isinstance(part, float):
            need(math.isfinite(part), rule, part)


def read_table(text: str, delimiter: str) -> list[list[str]] | None:
    """Return the records of a CSV text (RFC 4180), read letter by letter; None where a quoted cell ends wrongly.

    A quotation mark inside a cell that does not begin with one is text.
    """
    records: list[list[str]] = []
    cells: list[str] = []
    cell: list[str] = []
    state, is_begun = "start", False
    for letter in text:
        if state == "quoted":
            if letter == '"':
                state = "after"
            else:
                cell.append(letter)
            continue
        if state == "after" and letter == '"':
            cell.append(letter)
            state = "quoted"
        elif letter == delimiter:
            cells.append("".join(cell))
            cell, state, is_begun = [], "start", True
        elif letter == "\n":
            if is_begun or cell or state == "after":
                records.append([*cells, "".join(cell)])
            cells, cell, state, is_begun = [], [], "start", False
        elif state == "after":
            return None
        elif state == "start" and letter == '"':
            state, is_begun = "quoted", True
        else:
            cell.append(letter)
            state, is_begun = "plain", True
    if state == "quoted":
        return None
    if is_begun or cell:
        records.append([*cells, "".join(cell)])
    return records
