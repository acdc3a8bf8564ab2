"""Load named prompt sets, and published sets from a user's local file with a column mapping."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from presafe.config.sources import Draw, FileSource, HubSource, QuerySource, SetSource, Source
from presafe.errors import PromptError
from presafe.prompts.arithmetic import arithmetic_prompts
from presafe.prompts.drawing import draw
from presafe.prompts.hub import hub_prompts
from presafe.prompts.rows import category_of, cell_text, column_names, has_answers, is_rendered, query_text, read_rows
from presafe.records import Expect, Prompt
from presafe.runs.io import read_jsonl

BUILT_IN = ("harmful", "benign", "borderline")
"""Sets that the project wrote: one-line harmful requests, ordinary instructions, and safe look-alikes."""

_COLUMNS = (
    "prompt",
    "text",
    "question",
    "instruction",
    "forbidden_prompt",
    "Goal",
    "goal",
    "Behavior",
    "query",
    "messages",
    "conversations",
)
"""Columns of the prompt in published files, tried in this order if the user names no column."""
_EXPORTED = "decision_index"
"""A column that only `presafe export-data` writes. The `prompt` of such a row is rendered; its `query` is not."""


@cache
def built_in(name: str, split: str) -> tuple[Prompt, ...]:
    """Return the prompts of one of the project's own sets.

    Args:
        name: One of `BUILT_IN`.
        split: "build" (made SmolThink), "align" (classifier and alignment) or "held_out" (evaluation).

    Raises:
        PromptError: there is no such set, or no prompt in that split.
    """
    if name not in BUILT_IN:
        raise PromptError(f"no built-in prompt set {name!r}.", f"There are: {', '.join(BUILT_IN)}.")
    folder = resources.files("presafe.prompts") / "data"
    with resources.as_file(folder / f"{name}.jsonl") as path:
        prompts = tuple(prompt for prompt in read_jsonl(path, Prompt, error=PromptError) if prompt.split == split)
    if not prompts:
        raise PromptError(f"prompt set {name!r} has no split {split!r}.", "There are: build, align, held_out.")
    return prompts


def from_file(
    path: Path,
    *,
    expect: Expect,
    column: str | None = None,
    context_column: str | None = None,
    target_column: str | None = None,
    where: tuple[str, str] | None = None,
) -> list[Prompt]:
    """Load prompts from a CSV, TSV, JSON or JSONL file, gzipped or not.

    Args:
        path: The file; the ids start with its stem.
        expect: What a careful assistant does with these prompts.
        column: Column of the prompt; None takes the first known name.
        context_column: Column of a text that the prompt refers to; it is put before the prompt, with a rule between
            them (format of HarmBench, arXiv 2402.04249).
        target_column: Column of the reference answer, for problems.
        where: Column and text; only rows whose column starts with the text are kept.

    Raises:
        PromptError: the file is unreadable or empty, or lacks a column.
    """
    return from_rows(
        read_rows(path),
        str(path),
        path.stem,
        expect=expect,
        column=column,
        context_column=context_column,
        target_column=target_column,
        where=where,
    )


def from_rows(
    rows: Sequence[dict[str, Any]],
    origin: str,
    stem: str,
    *,
    expect: Expect,
    column: str | None = None,
    context_column: str | None = None,
    target_column: str | None = None,
    where: tuple[str, str] | None = None,
) -> list[Prompt]:
    """Return prompts from rows with named columns.

    Args:
        rows: The rows.
        origin: Where they come from, for errors.
        stem: First part of the ids.
        expect: What a careful assistant does with these prompts.
        column: As in `from_file`.
        context_column: As in `from_file`.
        target_column: As in `from_file`.
        where: As in `from_file`.

    Raises:
        PromptError: there is no row, or no row is left; a column is missing, or a cell is empty.
    """
    if not rows:
        raise PromptError(f"{origin} holds no prompts.", "Give a CSV, TSV, JSON or JSONL file with one prompt per row.")
    is_named = column is not None
    column = column or _query_column(rows[0], origin)
    # a query has a row for each answer to it; a problem has its own reference
    is_once = (has_answers(rows[0], column) or _EXPORTED in rows[0]) and target_column is None
    numbered = list(enumerate(rows, start=1))
    if where is not None:
        numbered = [(number, row) for number, row in numbered if _starts(row, *where, origin)]
        if not numbered:
            raise PromptError(f"{origin} has no row whose {where[0]!r} starts with {where[1]!r}.")
    prompts: list[Prompt] = []
    texts: set[str] = set()
    for number, row in numbered:
        text = query_text(row, column, origin, number)
        if context_column:
            text = f"{cell_text(row, context_column, origin, number)}\n\n---\n\n{text}"
        if not is_named and has_answers(row, column) and is_rendered(text):
            raise PromptError(
                f"{origin}: row {number} has a rendered prompt in {column!r}, with marks of a chat.",
                "Name a column with the plain text of the user (`column`).",
            )
        if is_once and text in texts:
            continue
        texts.add(text)
        prompts.append(
            Prompt(
                id=f"{stem}-{len(prompts) + 1:04d}",
                text=text,
                category=category_of(row),
                split="held_out",
                license="see publisher",
                expect=expect,
                target=cell_text(row, target_column, origin, number) if target_column else None,
            )
        )
    return prompts


def _query_column(row: dict[str, Any], origin: str) -> str:
    """Return the column of the query, by what stands beside it.

    Raises:
        PromptError: there is none.
    """
    names = ["query"] if _EXPORTED in row else ["instruction"] if {"instruction", "output"} <= row.keys() else []
    column = next((name for name in (*names, *_COLUMNS) if name in row), None)
    if column is None:
        raise PromptError(
            f"{origin} has no column with a known name; it has: {column_names(row)}.",
            "Name the column of the prompt (`column`).",
        )
    return column


def _starts(row: dict[str, Any], column: str, start: str, origin: str) -> bool:
    """Return whether a row's column starts with a text.

    Raises:
        PromptError: there is no such column.
    """
    if column not in row:
        raise PromptError(f"{origin} has no column {column!r}; it has: {column_names(row)}.")
    return str(row[column]).startswith(start)


def load_source(source: QuerySource, seed: int, held_out: Sequence[str] = (), how: Draw = "first") -> list[Prompt]:
    """Load the prompts that a recipe's source names.

    Args:
        source: A set of the project, generated arithmetic, a local file, or a data set on the hub; not a `suite`.
        seed: Seed of generated arithmetic, of the draw from the hub, and of the order of a set that is drawn.
        held_out: Texts of the evaluation suites; prompts from the hub that are near one of them are left out.
        how: How `n` prompts of a set or a file are taken; those from the hub are drawn at random.

    Raises:
        PromptError: the source cannot be read, or holds fewer prompts than requested.
    """
    if isinstance(source, HubSource):
        drawn = hub_prompts(source, seed, held_out)
        if len(drawn) < (source.n or 1):
            raise PromptError(
                f"{source.origin} has {source.skip + len(drawn)} different prompts that are in no "
                f"evaluation suite, too few for skip = {source.skip} and n = {source.n}."
            )
        return drawn
    if not isinstance(source, SetSource):
        prompts = from_file(source.file, expect=source.expect, column=source.column, target_column=source.target_column)
        if isinstance(source, FileSource) and source.planted:
            prompts = [prompt.model_copy(update={"planted": True}) for prompt in prompts]
    elif source.set == "arithmetic":
        prompts = arithmetic_prompts(source.split, source.skip + (source.n or 0), seed)
    else:
        prompts = list(built_in(source.set, source.split))
        if source.drawn:
            random.Random(f"{seed} {source.set} {source.split}").shuffle(prompts)
    return skip_and_take(prompts, source, how, seed)


def skip_and_take(prompts: Sequence[Prompt], source: Source, how: Draw, seed: int) -> list[Prompt]:
    """Return `n` of the prompts after the first `skip`; all that are left if `n` is None.

    Args:
        prompts: All prompts of the source.
        source: The source, with `skip` and `n`.
        how: How the `n` prompts are taken.
        seed: Seed of the draw.

    Raises:
        PromptError: there are too few prompts.
    """
    last = None if source.n is None else source.skip + source.n
    if len(prompts) < (last or source.skip + 1):
        raise PromptError(
            f"{source.origin} has {len(prompts)} prompts, too few for skip = {source.skip} and n = {source.n}."
        )
    return draw(prompts[source.skip :], source.n, how, seed)


def load_sources(sources: Iterable[QuerySource], seed: int, held_out: Sequence[str] = ()) -> list[Prompt]:
    """Load the prompts of several sources, in order.

    Args:
        sources: The sources.
        seed: As in `load_source`.
        held_out: As in `load_source`.

    Raises:
        PromptError: as `load_source`; or two sources give prompts with the same id.
    """
    prompts = [prompt for source in sources for prompt in load_source(source, seed, held_out)]
    repeated = [prompt_id for prompt_id, count in Counter(prompt.id for prompt in prompts).items() if count > 1]
    if repeated:
        raise PromptError(
            f"two sources give a prompt with the same id ({repeated[0]}).",
            "Set `skip` so that they do not overlap; give two files different names.",
        )
    return prompts
