"""Write files whole or not at all, read them with their kind checked, and set a damaged one aside."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from presafe.errors import PreSafeError, RunError
from presafe.runtime.reading import is_deeper, is_utf8, parse_json, read_bytes, reason_of

R = TypeVar("R", bound=BaseModel)

_MAX_BYTES = 2**28
"""Most bytes of a file; the largest that presafe writes has some megabytes."""
_MAX_DEPTH = 100
"""Most levels of JSON; the deepest that presafe writes has fewer than 10."""
_CHOOSE_ANOTHER = (
    "Free some space or choose another folder with `out`, then run the same command: finished work is kept."
)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: after a kill half-way the old file is intact. A link is followed.

    Raises:
        RunError: the folder cannot be written, for example because the disk is full; or UTF-8 cannot hold the text.
    """
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        raise RunError(
            f"cannot write {path}: UTF-8 cannot hold {error.object[error.start : error.start + 1]!r}.",
            "Rename the file or change the text that has this character.",
        ) from error
    write_bytes(path, content)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: after a kill half-way the old file is intact. A link is followed.

    Raises:
        RunError: the folder cannot be written, for example because the disk is full.
    """
    path = Path(os.path.realpath(path))
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        raise disk_error(path, error) from error


def write_or_remove(path: Path, content: bytes | None) -> None:
    """Write a file as `write_bytes` does, or remove the one that is there if the content is None.

    Raises:
        RunError: the folder cannot be written.
    """
    if content is not None:
        write_bytes(path, content)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(path, error) from error


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> None:
    """Write records, one JSON object per line, whole or not at all.

    Raises:
        RunError: as `write_text`.
    """
    write_text(path, "".join(record.model_dump_json() + "\n" for record in records))


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all.

    Raises:
        RunError: as `write_text`.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def disk_error(path: Path, error: OSError, hint: str = _CHOOSE_ANOTHER) -> RunError:
    """Return the error of a write that failed: the disk is full, read-only, or not the user's.

    Args:
        path: File or folder that could not be written.
        error: Error of the system.
        hint: What to do about it.
    """
    return RunError(f"cannot write {path}: {reason_of(error)}.", hint)


def set_aside(path: Path) -> Path:
    """Rename a damaged file to `NAME.damaged`, or to `NAME.damaged2` and so forth if that exists.

    If the file is a link, the link is renamed and its target is not touched.

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


def read_jsonl(path: Path, kind: type[R], *, error: type[PreSafeError] = RunError, hint: str = "") -> list[R]:
    """Read records of one kind.

    Args:
        path: A file with one JSON object per line.
        kind: The kind of record.
        error: Class of the error to raise.
        hint: What to do if the file is damaged.

    Raises:
        PreSafeError: of the class `error`: the file cannot be read, or a line does not fit the record.
    """
    # Not `splitlines`: it also breaks at separators such as U+2028, which may stand in a JSON text.
    lines = _read(path, error, hint).split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(_parse_record(line, kind))
        except ValueError as problem:
            raise error(f"{path}:{number}: {_first_problem(problem, 'line')}.", hint) from problem
    return records


def read_record(path: Path, kind: type[R], *, hint: str = "") -> R:
    """Read one record, which is a JSON file of its own.

    Raises:
        RunError: the file cannot be read, or does not fit the record.
    """
    text = _read(path, RunError, hint)
    try:
        return _parse_record(text, kind)
    except ValueError as problem:
        raise RunError(f"cannot read {path}: {_first_problem(problem, 'file')}.", hint) from problem


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object: a dict of finite numbers, with each name once, not nested deeper than presafe writes it.

    Raises:
        RunError: the file cannot be read, or holds something else.
    """
    text = _read(path, RunError)
    try:
        value = parse_json(text)
    except ValueError as error:
        raise RunError(f"cannot read {path}: {error}.") from error
    if not isinstance(value, dict):
        raise RunError(f"cannot read {path}: it holds {_KINDS.get(type(value), 'a number')}, not a JSON object.")
    if is_deeper(value, _MAX_DEPTH):
        raise RunError(f"cannot read {path}: its JSON is nested too deeply.")
    if not is_utf8(json.dumps(value, ensure_ascii=False)):
        raise RunError(f"cannot read {path}: it holds half of a pair of surrogates, which is no character.")
    return value


_KINDS = {list: "a list", str: "a text", type(None): "null", bool: "true or false"}


def _read(path: Path, error: type[PreSafeError], hint: str = "") -> str:
    """Return the text of a file that presafe wrote.

    Raises:
        PreSafeError: of the class `error`: it is missing, not a regular file, too large, or not UTF-8.
    """
    try:
        return read_bytes(path, _MAX_BYTES).decode()
    except (OSError, ValueError) as problem:
        raise error(f"cannot read {path}: {reason_of(problem)}.", hint) from problem


def _parse_record(text: str, kind: type[R]) -> R:
    """Return a record as it was written: "5" and true are no numbers, and no name stands twice.

    Raises:
        ValueError: the text does not fit the record.
    """
    record = kind.model_validate_json(text, strict=True)
    parse_json(text)  # pydantic takes the last value of a name that stands twice
    return record


def _first_problem(error: ValueError, no_key: str) -> str:
    """Return the first problem with its key; `no_key` stands for the file or line itself."""
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"]) or no_key
    return f"{key}: {problem['msg']}"
