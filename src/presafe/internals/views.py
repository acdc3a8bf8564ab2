"""What was seen inside a run's systems, as it is stored in the run folder.

inside.json     {"settings": …, "systems": [`InsideView` of the model as it came and of every aligned system]}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from presafe.records import InsideView, Record
from presafe.runs.io import read_record, write_json

_FILE = "inside.json"


class StoredViews(Record):
    """The views of a run's systems, and the settings they were made with."""

    settings: dict[str, Any]
    systems: tuple[InsideView, ...]


def stored_views(folder: Path) -> StoredViews | None:
    """Return what is stored in a run folder, or None if nobody looked inside the run.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / _FILE
    hint = f"Delete it; `presafe look {folder}` makes it again."
    return read_record(path, StoredViews, hint=hint) if path.exists() else None


def views_of(folder: Path) -> list[InsideView]:
    """Return the internals stored in a run folder, or an empty list.

    Raises:
        RunError: the file is damaged.
    """
    stored = stored_views(folder)
    return [] if stored is None else list(stored.systems)


def store_views(folder: Path, settings: dict[str, Any], views: Sequence[InsideView]) -> None:
    """Write the views of a run, whole or not at all.

    Args:
        folder: A run folder.
        settings: What the views were made with.
        views: One per system and seed.

    Raises:
        RunError: the folder cannot be written.
    """
    write_json(folder / _FILE, {"settings": settings, "systems": [view.model_dump(mode="json") for view in views]})
