"""Write files whole or not at all, read them with their kind checked, and set a damaged one aside."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from presafe.errors import PreSafeError, PromptError, RunError

R = TypeVar("R", bound=BaseModel)

_MOST_BYTES = 2**28
"""Size of a file that is still read; the largest that presafe writes is some megabytes."""
_MOST_DEPTH = 100
"""Depth of JSON that is still read; the deepest that presafe writes is below 10."""


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: a kill half-way leaves the old one. Through a link, what it points to.

    Raises:
        RunError: the folder cannot be written, for example because the disk is full; or UTF-8 cannot hold the text.
    """
    path = Path(os.path.realpath(path))
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise disk_error(path, error) from error
    except UnicodeEncodeError as error:
        part.unlink(missing_ok=True)
        raise RunError(
            f"cannot write {path}: UTF-8 cannot hold {error.object[error.start : error.start + 1]!r}.",
            "Rename the file or change the text that has this character.",
        ) from error


def disk_error(path: Path, error: OSError) -> RunError:
    """Return the error of a write that failed, with what to do."""
    return RunError(
        f"cannot write {path}: {error.strerror or error}.",
        "Free some space or choose another folder with --out, then run the same command: finished work is kept.",
    )


def set_aside(path: Path) -> Path:
    """Rename a damaged file to `NAME.damaged`, or `NAME.damaged2` and so forth where that exists.

    A link is renamed itself; what it points to is left alone.

    Returns:
        The new path.

    Raises:
        RunError: the folder cannot be written.
    """
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.damaged{number if number > 1 else ''}")):
        number += 1
    try:
        path.rename(aside)
    except OSError as error:
        raise disk_error(path, error) from error
    return aside


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> None:
    """Write records, one JSON object a line, whole or not at all."""
    write_text(path, "".join(record.model_dump_json() + "\n" for record in records))


def read_jsonl(path: Path, kind: type[R], *, error: type[PreSafeError] = PromptError, hint: str = "") -> list[R]:
    """Read records of one kind.

    Args:
        path: A file with one JSON object a line.
        kind: The kind of record.
        error: What is raised; `PromptError` is for a file of prompts, `RunError` for one that presafe wrote.
        hint: What to do where the file cannot be read.

    Raises:
        PreSafeError: of the class `error`: the file is missing, not UTF-8, or a line does not fit the record.
    """
    try:
        # Not `splitlines`: it also breaks at separators such as U+2028, which may stand in a JSON text.
        lines = read_whole(path).split("\n")
    except (OSError, ValueError) as problem:
        raise error(f"cannot read {path}: {problem}.", hint) from problem
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(kind.model_validate_json(line))
        except ValidationError as problem:
            raise error(f"{path}:{number}: {_first_problem(problem, 'line')}.", hint) from problem
    return records


def read_record(path: Path, kind: type[R], *, hint: str = "") -> R:
    """Read one record, which is a JSON file of its own.

    Raises:
        RunError: the file is missing, not UTF-8, or does not fit the record.
    """
    try:
        return kind.model_validate_json(read_whole(path))
    except ValidationError as problem:
        raise RunError(f"cannot read {path}: {_first_problem(problem, 'file')}.", hint) from problem
    except (OSError, ValueError) as problem:
        raise RunError(f"cannot read {path}: {problem}.", hint) from problem


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object: a dict of finite numbers, not deeper than presafe writes it.

    Raises:
        RunError: the file cannot be read, or holds something else.
    """
    try:
        value = json.loads(read_whole(path), parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise RunError(f"cannot read {path}: its JSON is nested too deeply.") from None
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}.") from error
    if not isinstance(value, dict):
        raise RunError(f"cannot read {path}: it holds {_KINDS.get(type(value), 'a number')}, not a JSON object.")
    if _is_deep(value):
        raise RunError(f"cannot read {path}: its JSON is nested too deeply.")
    return value


def read_whole(path: Path) -> str:
    """Return the text of a regular file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no regular file, larger than anything that presafe writes, or not UTF-8.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe would be waited for
        if not path.is_file():
            raise ValueError("it is not a file")
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
    return data.decode("utf-8")


_KINDS = {list: "a list", str: "a text", type(None): "null", bool: "true or false"}


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits:.20} is too large")
    return number


def _is_deep(value: Any) -> bool:
    """Whether JSON is nested more deeply than presafe writes it; without recursion of its own."""
    level = [value]
    for _ in range(_MOST_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _first_problem(error: ValidationError, whole: str) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or whole
    return f"{where}: {first['msg']}"


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all.

    Raises:
        RunError: the folder cannot be written.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
