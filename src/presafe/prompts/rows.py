"""Read the rows of a CSV, TSV, JSON or JSONL file exactly, or raise an error that names the row.

No cell is cut or rewritten: a cell that cannot be read exactly is refused. In JSON a text may also be wrapped as in
data sets of chats (`messages`, or `conversations` in the manner of ShareGPT): one user turn, with or without the answer
to it; or an object with one `text`. Alpaca's `instruction` and `input` are joined. A system prompt or earlier turns are
refused, because presafe asks one user turn.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from presafe.errors import PromptError
from presafe.runtime.reading import MOST, is_deeper, is_utf8, printable, read_text

MAX_LETTERS = 4_000_000
"""Largest number of letters of a text: about a million tokens of four letters, the longest published context of most
models. Tokenizing more takes gigabytes of memory. Ours."""
_MAX_DIGITS = 4300
"""Largest number of digits of a whole number that Python converts."""
_MAX_DEPTH = 100
"""Largest number of lists and objects around a value. Ours."""
CHATS = ("messages", "conversations")
"""Columns that hold a chat: a query and one answer to it."""
_TURN = (("role", "content"), ("from", "value"))
"""Names of a turn's two parts, in OpenAI's form and in ShareGPT's."""
_USERS, _ASSISTANTS = ("user", "human"), ("assistant", "gpt")
"""Names of the roles in both forms."""
_BESIDE = ("system", "system_prompt", "history", "tools")
"""Columns that change what the model is asked, in data sets of chats and of answers."""
_ANSWERS = ("completion", "output", "response")
"""Columns of data sets of answers, in which a query has a row for each answer."""
_MARKS = re.compile(
    r"<\|(?:im_start|start|user|begin_of_text|start_header_id|start_of_role|turn)\|?>|<｜User｜>|\[INST\]|<start_of_turn>"
)
"""Marks that chat templates put around a user's text."""
_PLAIN = {"name", "weight"}
"""Keys of a turn beside its role and its text that change nothing that the model reads."""
_CATEGORY_COLUMNS = (
    "category_text",
    "category",
    "violated_categories",
    "Category",
    "SemanticCategory",
    "subject",
    "data_type",
    "type",
)
"""Columns that name a category in published files and data sets, in the order in which they are tried."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a CSV, TSV, JSON or JSONL file, gzipped or not.

    Args:
        path: The file.

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
        if problem := _row_problem(row):
            raise PromptError(f"{path}: row {number} {problem}.")
    return rows


def cell_text(row: dict[str, Any], column: str, origin: str, number: int) -> str:
    """Return the text of a cell, without the blanks around it.

    Args:
        row: The row, from a CSV or JSON file or a data set of the hub.
        column: The cell's column.
        origin: Where the row comes from, for errors.
        number: Number of the row, from 1, for errors.

    Raises:
        PromptError: there is no such column, or the cell holds no text or one that is too long.
    """
    if column not in row:
        where = origin if number == 1 else f"{origin}: row {number}"
        raise PromptError(f"{where} has no column {column!r}; it has: {column_names(row)}.")
    value = _unwrapped(row[column])
    if isinstance(value, bool) or not isinstance(value, str | int | float | None) or not _is_finite(value):
        raise PromptError(
            f"{origin}: row {number} holds {_kind_of(value)} in {column!r}, not a text.",
            "Write it as one text: presafe asks one user turn, without a system prompt.",
        )
    text = "" if value is None else str(value).strip()
    if not text:
        raise PromptError(f"{origin}: row {number} has an empty {column!r}.")
    if len(text) > MAX_LETTERS:
        raise PromptError(
            f"{origin}: row {number} has {len(text):,} letters in {column!r}, and presafe reads {MAX_LETTERS:,}.",
            "No model has such a context: shorten the text, or leave the row out.",
        )
    return text


def query_text(row: dict[str, Any], column: str, origin: str, number: int) -> str:
    """Return the text of a query: a cell, and what stands beside it in data sets of chats.

    Args:
        row: As in `cell_text`.
        column: As in `cell_text`.
        origin: As in `cell_text`.
        number: As in `cell_text`.

    Raises:
        PromptError: as `cell_text`; or a column beside it holds a system prompt, earlier turns or tools.
    """
    text = cell_text(row, column, origin, number)
    for other in _BESIDE if has_answers(row, column) or column == "instruction" else ():
        if str(row.get(other) or "").strip() not in ("", "[]", "{}"):
            raise PromptError(
                f"{origin}: row {number} has a {other!r} beside its {column!r}, which changes what the model is asked.",
                "presafe asks one user turn: leave such rows out, or write one text.",
            )
    if (
        column == "instruction" and row.get("input") not in (None, "") and str(row["input"]).strip()
    ):  # Alpaca's second half of a query
        text = f"{text}\n{cell_text(row, 'input', origin, number)}"
    return text


def has_answers(row: dict[str, Any], column: str) -> bool:
    """Return whether a row is of a data set of chats or of answers.

    Args:
        row: The row.
        column: The column of its query.
    """
    return column in CHATS or any(name in row for name in _ANSWERS) or isinstance(row.get("history"), list)


def is_rendered(value: Any) -> bool:
    """Return whether a text has marks that a chat template writes."""
    return isinstance(value, str) and _MARKS.search(value) is not None


def column_names(row: dict[str, Any]) -> str:
    """Return the names of a row's columns for an error: the first 20, cut to 40 letters."""
    names = [printable(str(name)[:40]) for name in row]
    return ", ".join(names[:20] + ["…"] * (len(names) > 20))


def category_of(row: dict[str, Any]) -> str:
    """Return a row's category: the first column of a known name that is not empty, or "none"."""
    return str(next((row[name] for name in _CATEGORY_COLUMNS if row.get(name)), "none"))


def _table(text: str, delimiter: str, path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table, without blank lines."""
    lines = _Lines(text)
    rows = []
    limit = csv.field_size_limit(MOST)
    try:
        records = ((cells, lines.take()) for cells in csv.reader(lines, delimiter=delimiter, strict=True) if cells)
        header, _ = next(records, ([], ""))
        if repeated := [name for name, count in Counter(filter(str.strip, header)).items() if count > 1]:
            raise PromptError(f"{path} has two columns with the name {printable(repeated[0][:40])!r}.", "Rename one.")
        for number, (cells, line) in enumerate(records, start=1):
            if len(cells) > 1 == len(header) and delimiter.join(cells) == line:
                cells = [line]  # a table of one column, without quotes: commas belong to the text
            rows.append(_named(cells, header, f"{path}: row {number}"))
    finally:
        csv.field_size_limit(limit)
    return rows


def _named(cells: list[str], header: list[str], row: str) -> dict[str, Any]:
    """Return cells by the names of their columns; missing cells at the end are None.

    Raises:
        PromptError: a cell has no column, or its column has no name.
    """
    hint = "Put a text that holds a comma, a tab or a quotation mark in double quotes."
    if len(cells) > len(header):
        raise PromptError(f"{row} has {len(cells)} cells, and the header names {len(header)} columns.", hint)
    for place, (name, cell) in enumerate(zip(header, cells, strict=False)):
        if place and cell.strip() and not name.strip():  # the first may be the index that pandas writes
            raise PromptError(f"{row} has a cell in column {place + 1}, which the header gives no name.", hint)
    return dict(zip(header, [*cells, *[None] * (len(header) - len(cells))], strict=True))


class _Lines:
    """The lines of a text one by one, which remembers the lines read since the last `take`."""

    def __init__(self, text: str) -> None:
        # not `splitlines`, which also splits at separators such as U+2028; they are text in CSV and JSON
        self._lines, self._taken = io.StringIO(text), list[str]()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._taken.append(line)
        return line

    def take(self) -> str:
        """Return the lines that a record was read from, without blank lines before it and its line end."""
        record = "".join(self._taken).strip("\n")
        self._taken.clear()
        return record


class _RepeatedName(dict[str, Any]):
    """A JSON object in which a name occurs twice."""

    name: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, marked if a name occurs twice in it."""
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    marked = _RepeatedName(values)
    marked.name = Counter(name for name, _ in pairs).most_common(1)[0][0]
    return marked


def _parsed(text: str) -> Any:
    """Return what a JSON text holds; numbers with a point or with too many digits are kept as text.

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
    """Return what the lines of a JSONL text hold.

    Raises:
        ValueError: a line is not JSON, or nested too deep.
    """
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            if line.strip():
                rows.append(_parsed(line))
        except json.JSONDecodeError as error:  # its own line number is within this line
            raise json.JSONDecodeError(f"line {number} of the file: {error.msg}", error.doc, error.pos) from error
        except ValueError as error:
            raise ValueError(f"line {number} of the file: {error}") from error
    return rows


def _row_problem(row: dict[str, Any]) -> str:
    """Return why a row of JSON cannot be read exactly, or "" if it can."""
    if is_deeper(row, _MAX_DEPTH):
        return f"is nested deeper than {_MAX_DEPTH} lists and objects"
    values: list[Any] = [row]
    while values:
        value = values.pop()
        if isinstance(value, _RepeatedName):
            return f"has the name {printable(value.name[:40])!r} twice in one object"
        if isinstance(value, dict):
            values += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            values += value
        elif isinstance(value, str) and ("\0" in value or not is_utf8(value)):
            return "holds a NUL character, or half of a pair of surrogates, which is not a character"
    return ""


def _unwrapped(value: Any) -> Any:
    """Return the text of the one user turn of a chat, or in an object with only a `text`; any other value unchanged.

    An answer of the assistant after it is left out: it is a query that is read.
    """
    turns = _turns(value)
    if 1 <= len(turns) <= 2 and turns[0][0] in _USERS and all(role in _ASSISTANTS for role, _ in turns[1:]):
        return turns[0][1]
    if isinstance(value, dict) and value.keys() == {"text"} and isinstance(value["text"], str):
        return value["text"]
    return value


def _turns(value: Any) -> list[tuple[str, str]]:
    """Return role and text of each turn of a chat; nothing if a value is no chat of texts.

    Whatever stands beside an assistant's text is left out with it; beside a user's, only `_PLAIN` may stand.
    """
    turns = []
    for turn in value if isinstance(value, list) else []:
        names = next((names for names in _TURN if isinstance(turn, dict) and {*names} <= turn.keys()), ())
        if not names or not isinstance(turn[names[0]], str):
            return []
        role, text = (turn[name] for name in names)
        if role not in _ASSISTANTS and (
            not isinstance(text := _text_part(text), str) or turn.keys() - {*names} - _PLAIN
        ):
            return []
        turns.append((role, str(text)))
    return turns


def _text_part(content: Any) -> Any:
    """Return the text of a content that is one part of text; any other content unchanged."""
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        (part,) = content
        if part.keys() == {"type", "text"} and part["type"] == "text":
            return part["text"]
    return content


def _is_finite(value: str | int | float | None) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _kind_of(value: Any) -> str:
    """Return the kind of a value in words."""
    if (
        isinstance(value, list)
        and value
        and all(isinstance(turn, dict) and turn.keys() & {"role", "from"} for turn in value)
    ):
        roles = (str(turn.get("role", turn.get("from")))[:20] for turn in value[:5])
        return f"a conversation ({', '.join(map(printable, roles))})"
    names = {bool: "a truth value", list: "a list", dict: "an object", float: f"the number {value}"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), f"a {type(value).__name__}")
