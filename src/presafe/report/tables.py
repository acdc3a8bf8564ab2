"""The data behind a report's tables and figures as CSV, one file per kind of record, for other plotting programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presafe.report.formatting import plain
from presafe.runs.io import write_or_remove

if TYPE_CHECKING:
    from presafe.records import InsideView
    from presafe.report.data import ReportData


def write_tables(data: ReportData, folder: Path) -> list[Path]:
    """Write the data of a report's tables and figures; every figure's are in one of the files.

    Scores, those of a panel's members, differences, decision positions, training curves, places of refusals, the
    classifier's reliability bins, success by length of the thought, and of a look inside: probes, directions and the
    plane.

    Args:
        data: The report.
        folder: Created if it does not exist.

    Returns:
        The paths of the files. A kind without records has none: one that an older report left is removed.

    Raises:
        RunError: the folder cannot be written.
    """
    tables: dict[str, list[Mapping[str, Any]]] = {
        "scores": [score.model_dump() for score in (*data.scores, *data.sweep)],
        "panel": [score.model_dump() for score in data.panel],
        "differences": [difference.model_dump() for difference in data.differences],
        "positions": [position.model_dump() for position in data.positions],
        "training": [
            {"system": system, **point.model_dump()} for system, points in data.histories.items() for point in points
        ],
        "thoughts": [row.model_dump() for row in data.thoughts],
        "places": [
            {"system": row.system, "suite": row.suite, "expect": row.expect, "place": place, "count": count}
            for row in data.places
            for place, count in row.counts.items()
        ],
        "reliability": [bin_.model_dump() for bin_ in data.classifier.bins] if data.classifier else [],
        "probes": _of_views(data.inside, "probes"),
        "directions": _of_views(data.inside, "cosines"),
        "plane": _of_views(data.inside, "points"),
    }
    paths = {name: folder / f"{name}.csv" for name in tables}
    for name, rows in tables.items():
        write_or_remove(paths[name], csv_text(rows).encode() if rows else None)
    return [paths[name] for name, rows in tables.items() if rows]


def _of_views(views: Sequence[InsideView], field: str) -> list[Mapping[str, Any]]:
    """Return the rows of one field of all views, each with its system and seed."""
    return [
        {"system": view.system, "seed": view.seed, **row.model_dump()} for view in views for row in getattr(view, field)
    ]


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a header: the union of their columns in the order of their first use; None is empty.

    A text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(_cells(row.get(column) for column in columns) for row in rows)
    return text.getvalue()


def _cells(values: Iterable[Any]) -> list[Any]:
    texts = (plain(value) if isinstance(value, str) else value for value in values)
    return [f"'{text}" if isinstance(text, str) and text.startswith(("=", "+", "-", "@")) else text for text in texts]
