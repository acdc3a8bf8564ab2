"""Alignment rows as text, in the formats that other tools train on.

    trl            prompt and completion as text, the prompt rendered; `query` is the user's text
    llamafactory   Alpaca rows (instruction, input, output), with a `dataset_info.json` that names the columns
    openai         chat rows (messages); the columns lie in a file of their own, because no other key is allowed

Every format keeps the thought. Each is written as two files, `refuse.jsonl` and `comply.jsonl`, so that either can be
named as queries of a recipe. The last two hold neither rows with CoT off nor rows whose answer was cut: their tools
render the prompt with CoT on, and end every turn.

The columns are `id`, `thinking`, `complete` (whether the turn ends), `signal` (p′ in [0, 1], or null with CoT off) and
`decision_index`: the index of the last prompt token before the CoT, if the tokenizer reads the rendered prompt; null
with CoT off. That is `prompt` in `trl`; the other two, whose rows hold no rendered prompt, have a column
`rendered_prompt`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from presafe.alignment.rows import AlignmentRow
from presafe.errors import SignalError
from presafe.models.family import Family
from presafe.models.rendering import Renderer
from presafe.records import Expect, Prompt, Thinking
from presafe.runs.io import write_json, write_text

Format = Literal["trl", "llamafactory", "openai"]
FORMATS: tuple[Format, ...] = get_args(Format)


class TextRow(NamedTuple):
    """One alignment row as text."""

    id: str
    expect: Expect
    thinking: Thinking
    query: str
    prompt: str
    """The rendered prompt; a first token that the tokenizer itself adds to a text is left out."""
    completion: str
    """What is learned, as the model writes it, with the token that ends the turn."""
    content: str
    """The assistant's turn for a chat format: thought between its marks, and answer."""
    signal: float | None
    decision_index: int | None
    complete: bool
    """Whether the model ended its turn."""

    @property
    def columns(self) -> dict[str, Any]:
        """Return the columns that every format keeps beside its own and the rendered prompt."""
        return {
            "id": self.id,
            "thinking": self.thinking,
            "complete": self.complete,
            "signal": self.signal,
            "decision_index": self.decision_index,
        }


def check_format(format: Format, family: Family) -> None:
    """Check that a format can hold a family's turns: a text of thought and answer has no place for messages or marks.

    Raises:
        SignalError: it cannot.
    """
    if family.answer_open and format != "trl":
        raise SignalError(
            f"the format {format} holds thought and answer as one text, and models of {family.name} mark their answer "
            f"({family.answer_open!r}): another tool would write these marks wrongly.",
            "Take `--format trl`, which holds the turn as the model writes it.",
        )


def text_row(row: AlignmentRow, prompt: Prompt, renderer: Renderer) -> TextRow:
    """Return an alignment row as text.

    Args:
        row: The row.
        prompt: Its query.
        renderer: The tokenizer and family that made it.
    """
    tokenizer = renderer.tokenizer
    thinking: Thinking = "on" if row.signal is not None else "off"
    rendered = renderer.render(prompt.text, thinking)
    completion_ids = row.input_ids[len(rendered.ids) :]
    text = tokenizer.decode(rendered.ids, skip_special_tokens=False)
    if len(tokenizer("").input_ids) and tokenizer.bos_token:  # it would stand twice
        text = text.removeprefix(tokenizer.bos_token)
    answer = renderer.split(completion_ids, thinking)
    marks = renderer.family
    thought = f"{marks.think_open}\n{answer.thought}\n" if thinking == "on" else ""
    closed = f"{marks.think_close}\n\n{answer.answer}" if not answer.truncated else ""
    return TextRow(
        id=row.prompt_id,
        expect=prompt.expect,
        thinking=thinking,
        query=prompt.text,
        prompt=text,
        completion=tokenizer.decode(completion_ids, skip_special_tokens=False),
        content=thought + closed if thinking == "on" else answer.answer,
        signal=row.signal,
        decision_index=len(tokenizer(text).input_ids) - 1 if thinking == "on" else None,
        complete=bool(completion_ids) and completion_ids[-1] in renderer.stop_ids(),
    )


def fits(row: TextRow, format: Format) -> bool:
    """Return whether a format can hold a row: only `trl` has a place for CoT off and for an answer that was cut.

    Args:
        row: The row.
        format: Name of the format.
    """
    return format == "trl" or (row.thinking == "on" and row.complete)


def write_rows(rows: Sequence[TextRow], format: Format, folder: Path) -> list[Path]:
    """Write alignment rows in one format.

    Args:
        rows: The rows; those of a kind that no row has get no file.
        format: Name of the format.
        folder: Where to write; created if it does not exist.

    Returns:
        The paths of the files of rows.

    Raises:
        RunError: the folder cannot be written.
    """
    written = {}
    for kind in ("refuse", "comply"):
        # problems are harmless queries, too
        of_kind = [row for row in rows if (row.expect == "refuse") == (kind == "refuse")]
        if of_kind:
            written[kind] = folder / f"{kind}.jsonl"
            _write_jsonl(written[kind], [_ROWS[format](row) for row in of_kind])
            if format == "openai":
                _write_jsonl(folder / f"{kind}.columns.jsonl", [_with_rendered_prompt(row) for row in of_kind])
    if format == "openai":
        write_text(folder / "README.md", _configs(list(written)))
    if format == "llamafactory":
        columns = {"prompt": "instruction", "query": "input", "response": "output"}
        write_json(
            folder / "dataset_info.json",
            {
                f"presafe_{kind}": {"file_name": path.name, "formatting": "alpaca", "columns": columns}
                for kind, path in written.items()
            },
        )
    return list(written.values())


def _configs(kinds: Sequence[str]) -> str:
    """Return the head of a card by which `datasets` tells the rows from the files of columns beside them."""
    lines = ["---", "configs:"]
    for name, suffix in (("default", "jsonl"), ("columns", "columns.jsonl")):
        files = ", ".join(f"{kind}.{suffix}" for kind in kinds)
        lines.append(f"- {{config_name: {name}, data_files: [{files}]}}")
    return "\n".join([*lines, "---", ""])


def _write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _with_rendered_prompt(row: TextRow) -> dict[str, Any]:
    """Return the columns with the text that `decision_index` counts in, where the format's own row lacks it."""
    return {**row.columns, "rendered_prompt": row.prompt}


def _trl(row: TextRow) -> dict[str, Any]:
    return {"prompt": row.prompt, "completion": row.completion, "query": row.query, **row.columns}


def _llamafactory(row: TextRow) -> dict[str, Any]:
    return {"instruction": row.query, "input": "", "output": row.content, **_with_rendered_prompt(row)}


def _openai(row: TextRow) -> dict[str, Any]:
    turns = (("user", row.query), ("assistant", row.content))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


_ROWS: dict[Format, Callable[[TextRow], dict[str, Any]]] = {
    "trl": _trl,
    "llamafactory": _llamafactory,
    "openai": _openai,
}
