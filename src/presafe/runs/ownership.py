"""Whether a folder may be written: presafe replaces no file but its own."""

from __future__ import annotations

import os
from pathlib import Path

from presafe.errors import PreSafeError, RunError
from presafe.runs.manifest import read_manifest

MEASUREMENT = "measurement.json"
"""Settings of a measurement (`workflows/measure.py`)."""
SWEEP = "sweep.json"
"""Settings of a sweep (`workflows/sweep.py`)."""
COMPARISON = "comparison.json"
"""Settings of a comparison (`workflows/compare.py`)."""
LABELS = "labels.json"
"""What judged labels belong to (`judges/labelled_run.py`)."""
TRAINED_BY = "trained_by.json"
"""In a system's folder: which run of a study made the training that was copied (`study/sharing.py`)."""
_HOLDS = {
    "recipe.json": "a run",
    MEASUREMENT: "a measurement",
    SWEEP: "a sweep",
    COMPARISON: "a comparison",
    LABELS: "judged labels",
    "study.json": "a study",
}
"""Files of settings by which a folder of ours is known, and what such a folder holds."""
_NOTHING = {".lock", ".DS_Store"}
"""Files that may lie in a folder that is still empty."""


def check_ownership(folder: Path, settings_name: str) -> None:
    """Check that a folder may be written: it is new, empty, or presafe made it for the same purpose.

    Args:
        folder: The folder.
        settings_name: Name of the file of settings that will lie in it.

    Raises:
        RunError: the folder is a file, holds files of the user, or something else of presafe's.
    """
    choose = "Choose another folder with --out."
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise RunError(f"{folder} is not a folder.", choose)
    for name, what in _HOLDS.items():
        if name != settings_name and (folder / name).exists():
            raise RunError(f"{folder} holds {what}, not {_HOLDS[settings_name]}.", choose)
    if (folder / settings_name).exists():
        read_manifest(folder)
        return
    nothing = _NOTHING | {".manifest.json.part", f".{settings_name}.part"}
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.name not in nothing and not _is_empty(entry))
    except OSError as error:
        raise RunError(f"cannot read {folder}: {error.strerror or error}.", choose) from error
    if entries and not _was_begun(folder) and not all(map(_is_of_study, entries)):
        raise RunError(f"{folder} holds files that are not presafe's (such as {entries[0].name}).", choose)


def _is_empty(entry: Path) -> bool:
    """Return whether this is a folder without a file in or below it."""
    return entry.is_dir() and not entry.is_symlink() and all(_is_empty(inner) for inner in entry.iterdir())


def _was_begun(folder: Path) -> bool:
    """Return whether a kill came after the manifest and before the settings."""
    try:
        return bool(read_manifest(folder))
    except PreSafeError:
        return False


def _is_of_study(entry: Path) -> bool:
    """Return whether a study put this into a run folder before the run: links into its store, or a training."""
    if entry.name not in ("responses", "signals", "alignment", "evaluation", "stages"):
        return False
    if entry.is_symlink():
        return True
    if entry.name == "alignment":
        return entry.is_dir() and all((system / TRAINED_BY).is_file() for system in entry.iterdir())
    return entry.is_dir() and all(path.is_symlink() or path.is_dir() for path in entry.rglob("*"))
