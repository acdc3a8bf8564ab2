"""Check that a folder may be written: presafe replaces only its own files."""

from __future__ import annotations

import os
from collections.abc import Collection
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
"""Settings of judged labels (`judges/labelled_run.py`)."""
ORGANISM = "organism.json"
"""Settings of an organism (`tools/qwenthink/train.py`)."""
TRAINED_BY = "trained_by.json"
"""File in a system's folder that names the run of a study whose training was copied (`study/sharing.py`)."""
_HOLDS = {
    "recipe.json": "a run",
    MEASUREMENT: "a measurement",
    SWEEP: "a sweep",
    COMPARISON: "a comparison",
    LABELS: "judged labels",
    "study.json": "a study",
    ORGANISM: "an organism",
}
"""Contents of our folders, by the file of settings that lies in them."""
_IGNORED = {".lock", ".DS_Store"}
"""Files that do not count: with only these, a folder is empty."""
CHOOSE = "Choose another folder with `out`."
"""Hint where a folder cannot be used."""


def check_ownership(folder: Path, settings_name: str, beside: Collection[str] = ()) -> None:
    """Check that a folder may be written: it is new, empty, or presafe made it for the same purpose.

    Args:
        folder: The folder.
        settings_name: Name of the file of settings that presafe writes into it.
        beside: Suffixes of files of the user that may stand beside the results.

    Raises:
        RunError: the folder is a file, holds files of the user, or another kind of results.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise RunError(f"{folder} is not a folder.", CHOOSE)
    for name, contents in _HOLDS.items():
        if name != settings_name and (folder / name).exists():
            raise RunError(f"{folder} holds {contents}, not {_HOLDS[settings_name]}.", CHOOSE)
    if (folder / settings_name).exists():
        read_manifest(folder)
        return
    ignored = _IGNORED | {".manifest.json.part", f".{settings_name}.part"}
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.name not in ignored and not _is_empty(entry))
    except OSError as error:
        raise RunError(f"cannot read {folder}: {error.strerror or error}.", CHOOSE) from error
    entries = [entry for entry in entries if entry.suffix not in beside or not entry.is_file()]
    if entries and not _has_manifest(folder) and not all(map(_is_of_study, entries)):
        raise RunError(f"{folder} holds files that are not presafe's (such as {entries[0].name}).", CHOOSE)


def _is_empty(entry: Path) -> bool:
    """Return whether this is a folder with no file in or below it."""
    return entry.is_dir() and not entry.is_symlink() and all(_is_empty(inner) for inner in entry.iterdir())


def _has_manifest(folder: Path) -> bool:
    """Return whether presafe was killed between writing the manifest and the settings."""
    try:
        return bool(read_manifest(folder))
    except PreSafeError:
        return False


def _is_of_study(entry: Path) -> bool:
    """Return whether a study put this entry there before the run: links into its store, or a copied training."""
    if entry.name not in ("responses", "signals", "alignment", "evaluation", "stages"):
        return False
    if entry.is_symlink():
        return True
    if entry.name == "alignment":
        return entry.is_dir() and all((system / TRAINED_BY).is_file() for system in entry.iterdir())
    return entry.is_dir() and all(path.is_symlink() or path.is_dir() for path in entry.rglob("*"))
