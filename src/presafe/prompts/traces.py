"""Load safe thoughts and answers that others published, from the user's copy of their file; SFT baselines learn them.

STAR-1 and SafeChain keep thought and answer in one column, the thought between <think> and </think>.
"""

from __future__ import annotations

from typing import NamedTuple

from presafe.config.files import data_file
from presafe.config.sources import SafetyData
from presafe.errors import PromptError
from presafe.prompts.rows import MAX_LETTERS, column_names, read_rows
from presafe.prompts.sets import from_rows
from presafe.records import Prompt, Response

_OPEN, _CLOSE = "<think>", "</think>"
"""Think marks of the published files; the model may have others."""


class SafetyTrace(NamedTuple):
    """One row of a file: the question, and its published thought and answer."""

    prompt: Prompt
    """Its `target` is the complete response, so that a run detects that the file has changed."""
    response: Response


def load_traces(data: SafetyData) -> list[SafetyTrace]:
    """Load the rows of a file.

    Args:
        data: The file (`data_file`) and its columns.

    Raises:
        PromptError: the file cannot be read, lacks a column, or has a row without a thought or an answer.
    """
    file = data_file(data.file)
    try:
        rows = read_rows(file)
        prompts = from_rows(rows, str(file), file.stem, expect="refuse", column=data.prompt_column)
    except PromptError as error:
        hint = f"{data.file} is looked for in the working directory, then in the folder that PRESAFE_DATA names."
        raise PromptError(error.problem, error.hint or hint) from error
    traces = []
    for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True), start=1):
        if data.n is not None and number > data.n:
            break
        thought, answer = _split(row, data, number)
        traces.append(
            SafetyTrace(
                prompt.model_copy(update={"target": f"{thought}{_CLOSE}{answer}"}),
                Response(
                    prompt_id=prompt.id,
                    thinking="on",
                    thought=thought,
                    answer=answer,
                    truncated=False,
                    complete=True,
                    num_tokens=0,
                    verdict="safe",
                ),
            )
        )
    return traces


def _split(row: dict[str, object], data: SafetyData, number: int) -> tuple[str, str]:
    """Return thought and answer of one row.

    Args:
        row: The row.
        data: The file and its columns.
        number: Number of the row, from 1, for errors.

    Raises:
        PromptError: a column is missing or too long, or there is no thought or no answer.
    """
    columns = [data.response_column, *([data.thought_column] if data.thought_column else [])]
    for column in columns:
        if not isinstance(row.get(column), str):
            raise PromptError(
                f"{data.file} row {number} has no text in column {column!r}; it has: {column_names(row)}.",
                "Name the columns in the recipe's [align.data] (`response_column`, `thought_column`).",
            )
        if len(str(row[column])) > MAX_LETTERS:
            raise PromptError(f"{data.file} row {number} has more than {MAX_LETTERS:,} letters in {column!r}.")
    text = str(row[data.response_column])
    if data.thought_column:
        thought, mark, answer = str(row[data.thought_column]), _CLOSE, text
    else:
        thought, mark, answer = text.partition(_CLOSE)
    thought = thought.strip().removeprefix(_OPEN).strip()
    if not mark or not answer.strip():
        raise PromptError(
            f"{data.file} row {number} has no {'thought' if not mark else 'answer'} in column "
            f"{data.response_column!r}: a thought ends in {_CLOSE}.",
            "Name the thought's own column (`thought_column`), or leave such rows out of the file.",
        )
    return thought, answer.strip()
