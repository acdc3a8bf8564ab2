"""What verbs print on stdout: a table for people, or one JSON document for programs (`--json`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from presafe.report.data import ReportData

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(value: Any) -> None:
    """Print a value as one JSON document.

    Raises:
        ValueError: a number in it is not finite.
    """
    print(json.dumps(value, indent=2, allow_nan=False))


def print_tables(*tables: Table, width: int = 0) -> None:
    """Print tables; `width` is what they need at least, in characters: a narrow terminal would cut numbers."""
    from presafe.runtime.progress import PlainConsole

    console = PlainConsole()
    console.width = max(console.width, width)
    for table in tables:
        console.print(table)


def print_report(data: ReportData, page: Path, *tables: Table, as_json: bool) -> None:
    """Print the tables of a report and the path of its page, or the rows and differences behind them as JSON."""
    if as_json:
        rows = [row.model_dump(mode="json") for row in (*data.scores, *data.sweep)]
        differences = [row.model_dump(mode="json") for row in data.differences]
        print_json({"title": data.title, "rows": rows, "differences": differences, "report": str(page)})
        return
    from presafe.runtime.reading import printable

    print_tables(*tables)
    print(f"report: {printable(page)}")
