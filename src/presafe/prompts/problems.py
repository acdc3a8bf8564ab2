"""Build the prompts of problems from several columns: multiple choice, and programs.

GPQA       (arXiv 2311.12022)  a question, the right option, three wrong ones
HumanEval  (arXiv 2107.03374)  the head of a function, its name, its tests

The wording of the questions is ours.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from presafe.errors import PromptError
from presafe.records import Prompt, Record

_LETTERS = "ABCD"
_RIGHT, _WRONG = "Correct Answer", tuple(f"Incorrect Answer {number}" for number in (1, 2, 3))
_CHOOSE = "End with the letter of the right option in a box: " + ", ".join(rf"\boxed{{{letter}}}" for letter in "ABC")
_CHOOSE += r" or \boxed{D}."
_PROGRAM = (
    "Write this Python function. Answer with one code block that holds the whole program: imports, helper functions if "
    "you need any, and the function itself."
)


class CodeProblem(Record):
    """The request for a program and its tests; as JSON, the target of a prompt."""

    given: str
    """Imports, helpers, and the head of the function with its docstring."""
    entry_point: str
    """Name of the requested function."""
    tests: str
    """Source that defines `check`, which takes the function and raises an error if it is wrong."""


def choice_prompts(rows: Sequence[dict[str, Any]], stem: str, seed: int) -> list[Prompt]:
    """Build questions with four options, in an order that depends only on the seed and the question.

    Args:
        rows: The columns Question, Correct Answer, Incorrect Answer 1 to 3 and optionally High-level domain.
        stem: First part of the ids.
        seed: Seed of the orders.

    Raises:
        PromptError: a column is missing or empty.
    """
    prompts = []
    for number, row in enumerate(rows, start=1):
        question, right, *wrong = (_text(row, name, number) for name in ("Question", _RIGHT, *_WRONG))
        options = [right, *wrong]
        random.Random(f"{seed} {question}").shuffle(options)
        listed = "\n".join(f"{letter}) {option}" for letter, option in zip(_LETTERS, options, strict=True))
        prompts.append(
            Prompt(
                id=f"{stem}-{number:04d}",
                text=f"{question}\n\n{listed}\n\n{_CHOOSE}",
                category=str(row.get("High-level domain") or "none"),
                split="held_out",
                license="see publisher",
                expect="choice",
                target=_LETTERS[options.index(right)],
            )
        )
    return prompts


def code_prompts(rows: Sequence[dict[str, Any]]) -> list[Prompt]:
    """Build requests to write a function, each with its tests as the reference.

    Args:
        rows: The columns task_id, prompt, entry_point and test.

    Raises:
        PromptError: a column is missing or empty.
    """
    prompts = []
    for number, row in enumerate(rows, start=1):
        _text(row, "prompt", number)
        problem = CodeProblem(
            given=row["prompt"],  # unchanged: an answer may continue from its last line
            entry_point=_text(row, "entry_point", number),
            tests=_text(row, "test", number),
        )
        prompts.append(
            Prompt(
                id=_text(row, "task_id", number),
                text=f"{_PROGRAM}\n\n```python\n{problem.given.strip()}\n```",
                category="none",
                split="held_out",
                license="see publisher",
                expect="code",
                target=problem.model_dump_json(),
            )
        )
    return prompts


def _text(row: dict[str, Any], column: str, number: int) -> str:
    """Return a cell as text.

    Args:
        row: Cells by column.
        column: The column to read.
        number: Number of the row, from 1; for the error message.

    Raises:
        PromptError: the cell is missing or empty.
    """
    value = row.get(column)
    text = value.strip() if isinstance(value, str) else ""  # a list or a boolean is no text
    if not text:
        raise PromptError(f"row {number} has no {column!r}; its columns: {', '.join(map(str, row))}.")
    return text
