"""Prompt files: every accepted prompt is the text that an independent reader sees, and no row is lost."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

from faults.cases import Case, Fault
from faults.mutate import HOSTILE_TEXTS, HOSTILE_VALUES, change_json, damage
from faults.oracles import need, need_same, python_json, read_table, second_json
from presafe.prompts.sets import from_file

_WORDS = ("What is a spoon?", "Name a tree.", "a,b,c", 'He said "no", twice', "x\ty", "one\ntwo", *HOSTILE_TEXTS)
_COLUMNS = ("prompt", "text", "question", "instruction", "forbidden_prompt", "Goal", "goal", "Behavior", "query")
"""Columns of prompts, in the order in which they are looked for."""


class PromptFiles:
    """CSV, TSV, JSON and JSONL files of prompts."""

    name, clock_s = "prompts", 20.0

    def prepare(self, workspace: Path) -> None:
        """Need nothing."""

    def make(self, rng: random.Random) -> Case:
        """Return a well-formed file of hostile texts, or a damaged one."""
        target = rng.choice(("csv", "csv", "tsv", "json", "jsonl", "jsonl", "csv.gz", "jsonl.gz"))
        column = rng.choice(_COLUMNS[:4])
        texts = [rng.choice(_WORDS) for _ in range(rng.randint(1, 6))]
        rows: list[dict[str, Any]] = [{column: text, "answer": str(number)} for number, text in enumerate(texts)]
        if rng.random() < 0.2:
            rows = [{column: row[column]} for row in rows]
        is_json = "json" in target
        is_whole = all(text.strip() and "\0" not in text for text in texts)
        how = rng.randrange(5)
        if how == 1 and is_json:
            rows = [change_json(row, rng, HOSTILE_VALUES) for row in rows]
        data = _encoded(rows, target.split(".")[0], rng)
        if how in (2, 3):
            data = damage(data, rng)
        if target.endswith(".gz"):
            data = gzip.compress(data, mtime=0)
            data = damage(data, rng) if how == 4 else data
        is_intact = how == 0 or (how == 4 and not target.endswith(".gz")) or (how == 1 and not is_json)
        return Case(self.name, target, data, ("accepted" if is_whole else "refused") if is_intact else "any")

    def check(self, case: Case, folder: Path) -> None:
        """Read the prompts, and read the file again with other code."""
        path = folder / f"it.{case.target}"
        path.write_bytes(case.data)
        prompts = from_file(path, expect="comply")
        data = gzip.decompress(case.data) if case.target.endswith(".gz") else case.data
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        kind = case.target.split(".")[0]
        if kind in ("csv", "tsv"):
            expected = _texts_of_table(text, "," if kind == "csv" else "\t")
        else:
            expected = _texts_of_json(text, kind)
        need_same(expected, [prompt.text for prompt in prompts], f"{kind}: a prompt is another text than in the file")
        need(len({prompt.id for prompt in prompts}) == len(prompts), f"{kind}: two prompts have one id")
        for prompt in prompts:
            prompt.model_dump_json().encode()


def _encoded(rows: list[Any], target: str, rng: random.Random) -> bytes:
    if target == "json":
        return json.dumps(rows, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 1))).encode()
    if target == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=rng.random() < 0.5) + "\n" for row in rows).encode()
    file = io.StringIO(newline="")
    writer = csv.DictWriter(
        file,
        list(rows[0]),
        delimiter="," if target == "csv" else "\t",
        lineterminator=rng.choice(("\n", "\r\n")),
        quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
    )
    writer.writeheader()
    writer.writerows(rows)
    return rng.choice((b"", b"", b"\xef\xbb\xbf")) + file.getvalue().encode()


def _texts_of_table(text: str, delimiter: str) -> list[str]:
    records = read_table(text, delimiter)
    if not records:
        raise Fault("a table that is none was accepted", text[:300])
    header, *rows = records
    need(len(set(header) - {""}) == len([name for name in header if name]), "a column's name stands twice", header)
    column = header.index(next(name for name in _COLUMNS if name in header))
    if len(header) == 1:  # a text of one column may hold commas without quotes
        rows = [[delimiter.join(cells)] for cells in rows]
    for cells in rows:
        need(len(cells) <= len(header), "a row with more cells than columns was accepted", cells)
        need(len(cells) > column, "a row without the column was accepted", cells)
    return [cells[column].strip() for cells in rows]


def _texts_of_json(text: str, kind: str) -> list[str]:
    parts = [text] if kind == "json" else [line for line in text.split("\n") if line.strip()]
    values = [second_json(part, allows_nan=True) for part in parts]  # in other columns, as pandas writes it
    again = [python_json(part) for part in parts]
    rows, lines = (values[0], again[0]) if kind == "json" else (values, again)
    column = next(name for name in _COLUMNS if name in rows[0])
    texts = []
    for row, written in zip(rows, lines, strict=True):
        value = row[column]
        if isinstance(value, list):
            need(len(value) == 1 and value[0].get("role") == "user", "a conversation was accepted", value)
            value = value[0]["content"]
        if isinstance(value, dict):
            need(value.keys() == {"text"}, "an object was accepted as a prompt", value)
            value = value["text"]
        need(not isinstance(value, bool) and value is not None, "what is no text was accepted as a prompt", value)
        if isinstance(value, int | float):
            same = type(value)(written[column]) == value
            need(same, "a number is another one", written[column])
            value = str(written[column])
        need(isinstance(value, str), "what is no text was accepted as a prompt", value)
        texts.append(value.strip())
    return texts
