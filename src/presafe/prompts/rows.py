"""Rows of a CSV, TSV, JSON or JSONL file, each cell as it was written, or one line that names the row.

No cell is cut or rewritten: what cannot be read exactly is refused. In JSON a text may also stand in what data sets of
chats wrap it in: one user message, or an object with one `text`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from presafe.config.bounds import MOST
from presafe.errors import PromptError
from presafe.runtime.reading import is_deeper, is_utf8, printable, read_text

MAX_LETTERS = 4_000_000
"""Most letters of one text: about a million tokens, the longest context that most models publish, at four letters each.
To tokenize more takes gigabytes of memory."""
_MAX_DIGITS = 4300
"""Python converts no whole number of more digits."""
_MAX_DEPTH = 100
"""Most lists and objects around a value."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a CSV, TSV, JSON or JSONL file, gzipped or not.

    Raises:
        PromptError: the file is unreadable, not a list of rows with named columns, or a row cannot be read exactly.
    """
    text = read_text(path, PromptError)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = next((suffix for suffix in reversed(suffixes) if suffix != ".gz"), "")
    try:
        if suffix in (".csv", ".tsv"):
            return _table(text, "," if suffix == ".csv" else "\t", path)
        rows = _parsed(text) if suffix == ".json" else _json_lines(text)
    except (csv.Error, ValueError) as error:
        kind = {".csv": "CSV", ".tsv": "TSV", ".json": "JSON"}.get(suffix, "JSONL, one object a line")
        raise PromptError(f"{path} is not {kind}: {error}.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise PromptError(f"{path} is not a list of rows with named columns.")
    for number, row in enumerate(rows, start=1):
        if problem := _problem_of(row):
            raise PromptError(f"{path}: row {number} {problem}.")
    return rows


def cell_text(row: dict[str, Any], column: str, origin: str, number: int) -> str:
    """Return the text of a cell, without the blanks around it.

    Args:
        row: The row. Its cells hold what CSV, JSON or a data set of the hub can hold.
        column: The cell's column.
        origin: Where the row comes from, for the error.
        number: Number of the row, from 1, for the error.

    Raises:
        PromptError: there is no such column, no text in the cell, or too long a one.
    """
    if column not in row:
        where = origin if number == 1 else f"{origin}: row {number}"
        raise PromptError(f"{where} has no column {column!r}; it has: {column_names(row)}.")
    value = _unwrapped(row[column])
    if isinstance(value, bool) or not isinstance(value, str | int | float | None) or not _is_finite(value):
        raise PromptError(
            f"{origin}: row {number} holds {_kind_of(value)} in {column!r}, not a text.",
            "Give it as one text: presafe asks one user turn, without a system prompt.",
        )
    text = "" if value is None else str(value).strip()
    if not text:
        raise PromptError(f"{origin}: row {number} has an empty {column!r}.")
    if len(text) > MAX_LETTERS:
        raise PromptError(
            f"{origin}: row {number} has {len(text):,} letters in {column!r}, and presafe reads {MAX_LETTERS:,}.",
            "That is more than the context of a model.",
        )
    return text


def column_names(row: dict[str, Any]) -> str:
    """Return the names of a row's columns, for an error: the first 20, each cut to 40 letters."""
    names = [printable(str(name)[:40]) for name in row]
    return ", ".join(names[:20] + ["…"] * (len(names) > 20))


def category_of(row: dict[str, Any], columns: Sequence[str]) -> str:
    """Return what a row has in the first of some columns that holds anything; "none" where none does."""
    return str(next((row[name] for name in columns if row.get(name)), "none"))


def _table(text: str, delimiter: str, path: Path) -> list[dict[str, Any]]:
    """The rows of a table; lines that are blank are no rows."""
    lines = _Lines(text)
    rows = []
    limit = csv.field_size_limit(MOST)
    try:
        records = ((cells, lines.taken()) for cells in csv.reader(lines, delimiter=delimiter, strict=True) if cells)
        header, _ = next(records, ([], ""))
        if twice := [name for name, count in Counter(filter(str.strip, header)).items() if count > 1]:
            raise PromptError(f"{path} has two columns with the name {printable(twice[0][:40])!r}.", "Rename one.")
        for number, (cells, line) in enumerate(records, start=1):
            if len(cells) > 1 == len(header) and delimiter.join(cells) == line:
                cells = [line]  # of one column, without quotes: its commas are text
            rows.append(_named(cells, header, f"{path}: row {number}"))
    finally:
        csv.field_size_limit(limit)
    return rows


def _named(cells: list[str], header: list[str], row: str) -> dict[str, Any]:
    """Cells by the names of their columns; those that a row ends without are None."""
    hint = "A text with a comma, a tab or a quotation mark in it stands in double quotes."
    if len(cells) > len(header):
        raise PromptError(f"{row} has {len(cells)} cells, and the header names {len(header)} columns.", hint)
    for place, (name, cell) in enumerate(zip(header, cells, strict=False)):
        if place and cell.strip() and not name.strip():  # the first may be the index that pandas writes
            raise PromptError(f"{row} has a cell in column {place + 1}, which the header gives no name.", hint)
    return dict(zip(header, [*cells, *[None] * (len(header) - len(cells))], strict=True))


class _Lines:
    """The lines of a text, one by one, and those that were taken since it was last asked."""

    def __init__(self, text: str) -> None:
        # not `splitlines`: it also breaks at separators such as U+2028, which are text in CSV and JSON
        self._lines, self._taken = io.StringIO(text), list[str]()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._taken.append(line)
        return line

    def taken(self) -> str:
        """The lines that a record was read from, without the end of the last and without blank lines before it."""
        record = "".join(self._taken).strip("\n")
        self._taken.clear()
        return record


class _Twice(dict[str, Any]):
    """An object of JSON in which a name stands twice."""

    name: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    whole = dict(pairs)
    if len(whole) == len(pairs):
        return whole
    twice = _Twice(whole)
    twice.name = Counter(name for name, _ in pairs).most_common(1)[0][0]
    return twice


def _parsed(text: str) -> Any:
    """What a JSON text holds; a number with a point, or of very many digits, as it is written.

    Raises:
        ValueError: it is not JSON, or nested too deep.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_float=str,
            parse_int=lambda digits: int(digits) if len(digits) <= _MAX_DIGITS else digits,
        )
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {_MAX_DEPTH} lists and objects") from error


def _json_lines(text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            if line.strip():
                rows.append(_parsed(line))
        except json.JSONDecodeError as error:  # it knows its own line only
            raise json.JSONDecodeError(f"line {number} of the file: {error.msg}", error.doc, error.pos) from error
        except ValueError as error:
            raise ValueError(f"line {number} of the file: {error}") from error
    return rows


def _problem_of(row: dict[str, Any]) -> str:
    """Why a row of JSON cannot be taken as it stands; empty where it can."""
    if is_deeper(row, _MAX_DEPTH):
        return f"is nested deeper than {_MAX_DEPTH} lists and objects"
    parts: list[Any] = [row]
    while parts:
        part = parts.pop()
        if isinstance(part, _Twice):
            return f"has the name {printable(part.name[:40])!r} twice in one object"
        if isinstance(part, dict):
            parts += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            parts += part
        elif isinstance(part, str) and ("\0" in part or not is_utf8(part)):
            return "holds a NUL character, or half of a pair of surrogates, which is no character"
    return ""


def _unwrapped(value: Any) -> Any:
    """The text in one user message, or in an object that holds a `text` alone; anything else as it is."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        message = value[0]
        if message.keys() == {"role", "content"} and message["role"] == "user" and isinstance(message["content"], str):
            return message["content"]
    if isinstance(value, dict) and value.keys() == {"text"} and isinstance(value["text"], str):
        return value["text"]
    return value


def _is_finite(value: str | int | float | None) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _kind_of(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(part, dict) and "role" in part for part in value):
        return f"a conversation ({', '.join(printable(str(part['role'])[:20]) for part in value[:5])})"
    names = {bool: "a truth value", list: "a list", dict: "an object", float: f"the number {value}"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), f"a {type(value).__name__}")
