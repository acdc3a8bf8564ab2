"""What was seen inside a run's systems, as it is stored in the run folder.

inside.json     {"settings": …, "systems": [`InsideView` of the model as it came and of every aligned system]}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from presafe.records import InsideView
from presafe.runs.folder import RunFolder
from presafe.runs.io import read_json, write_json

_FILE = "inside.json"


class StoredViews(NamedTuple):
    """The views of a run's systems, and the settings they were made with."""

    settings: dict[str, Any]
    systems: list[dict[str, Any]]

    @property
    def views(self) -> list[InsideView]:
        """Return the views as records."""
        return [InsideView.model_validate(system) for system in self.systems]


def stored_views(run: RunFolder) -> StoredViews | None:
    """Return what is stored, or None if the run was never looked into."""
    path = run.path / _FILE
    if not path.exists():
        return None
    stored = read_json(path)
    return StoredViews(stored["settings"], stored["systems"])


def views_of(run: RunFolder) -> list[InsideView]:
    """Return stored internals, or an empty list."""
    stored = stored_views(run)
    return [] if stored is None else stored.views


def store_views(run: RunFolder, settings: dict[str, Any], views: Sequence[InsideView]) -> None:
    """Write the views of a run, whole or not at all.

    Args:
        run: A run folder.
        settings: What the views were made with.
        views: One per system and seed.

    Raises:
        RunError: the folder cannot be written.
    """
    write_json(run.path / _FILE, {"settings": settings, "systems": [view.model_dump(mode="json") for view in views]})
