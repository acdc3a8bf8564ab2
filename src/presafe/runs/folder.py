"""The run folder: where each stage leaves what the next one reads.

    runs/<name>/ recipe.json manifest.json timings.json
      responses/   signals/   alignment/<system>/   evaluation/   report/

A finished stage leaves a mark in `stages/`; the next session starts at the first stage without one. A folder belongs
to one recipe: results of two recipes are never mixed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from presafe.config.recipe import Recipe
from presafe.errors import RunError
from presafe.records import Record
from presafe.runs.io import disk_error, read_json, read_jsonl, set_aside, write_json
from presafe.runs.manifest import RESTORE, Origins, build_manifest, read_manifest, with_this_session
from presafe.runs.ownership import CHOOSE, check_ownership
from presafe.runtime.progress import console

R = TypeVar("R", bound=Record)


def read_timings(folder: Path) -> dict[str, float]:
    """Return the seconds that `timed` added up, by work; a damaged file is set aside.

    Raises:
        RunError: the folder cannot be written.
    """
    path = folder / "timings.json"
    if not os.path.lexists(path):
        return {}
    try:
        timings = read_json(path)
        for work, seconds in timings.items():
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
                raise RunError(f"{path} holds no seconds of {work!r}.")
    except RunError as error:
        set_aside_damaged(path, error.problem, "Times before now are not counted.")
        return {}
    return timings


def set_aside_damaged(path: Path, reason: str, consequence: str) -> None:
    """Set a damaged file aside and print a line about it.

    Args:
        path: The file.
        reason: What is wrong with it, a sentence.
        consequence: What that means, a sentence.

    Raises:
        RunError: the folder cannot be written.
    """
    aside = set_aside(path)
    console.print(f"  {reason} It is now {aside.name}. {consequence}", markup=False, soft_wrap=True)


def read_records(path: Path, kind: type[R], hint: str) -> list[R]:
    """Read records that presafe wrote into a folder.

    Args:
        path: A file with one JSON object per line.
        kind: The kind of record.
        hint: What to do if the file is damaged.

    Raises:
        RunError: the file cannot be read, or a line does not fit the record.
    """
    return read_jsonl(path, kind, hint=hint)


@contextmanager
def timed(folder: Path, work: str) -> Iterator[None]:
    """Add the block's seconds to the folder's timings, also when it fails.

    Raises:
        RunError: the folder cannot be written.
    """
    start = time.monotonic()
    try:
        yield
    finally:
        timings = read_timings(folder)
        timings[work] = round(timings.get(work, 0.0) + max(0.0, time.monotonic() - start), 1)
        write_json(folder / "timings.json", timings)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of a folder.

    Raises:
        RunError: another process works in it, or it cannot be written.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(f"another process is working in {folder}.", f"Wait for it. {CHOOSE}") from error
    except OSError as error:
        raise disk_error(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def create_folder(
    folder: Path,
    settings_file: Path,
    settings: dict[str, Any],
    prompts_sha256: str,
    origins: Origins | None = None,
    engine: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the manifest of a new folder, then its settings.

    Args:
        folder: The folder, new or empty.
        settings_file: Where its settings are written.
        settings: The settings, as JSON.
        prompts_sha256: Hash of all prompts (`sha256_of_prompts`).
        origins: Where the suites come from, by name.
        engine: Where this session samples, as JSON; None is this process.

    Returns:
        The manifest.

    Raises:
        RunError: as `check_ownership`; or the folder cannot be written.
    """
    check_ownership(folder, settings_file.name)
    manifest = build_manifest(settings, prompts_sha256, origins, engine)
    write_json(folder / "manifest.json", manifest)
    write_json(settings_file, settings)
    return manifest


def resume_folder(
    folder: Path,
    settings_file: Path,
    settings: dict[str, Any],
    prompts_sha256: str,
    engine: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Check that a folder from `create_folder` has these settings and prompts, and add this session to its manifest.

    Args:
        folder: The folder.
        settings_file: Where its settings were written.
        settings: The settings of today, as JSON.
        prompts_sha256: Hash of all prompts of today.
        engine: Where this session samples, as JSON; None is this process.

    Returns:
        The manifest.

    Raises:
        RunError: the folder was made with other settings or prompts, or its settings were changed since.
    """
    stored = read_json(settings_file)
    check_same(folder, stored, settings)
    manifest = read_manifest(folder, stored)
    if manifest.get("settings", stored) != stored:
        raise RunError(f"{settings_file} was changed after it was made.", RESTORE)
    return add_session(folder, prompts_sha256, engine)


def add_session(folder: Path, prompts_sha256: str, engine: dict[str, Any] | None = None) -> dict[str, Any]:
    """Add this session to a folder's manifest, if its code, machine or engine differs from the last one's.

    Returns:
        The manifest.

    Raises:
        RunError: the folder was made with other prompts, or cannot be written.
    """
    manifest = read_manifest(folder)
    if manifest["prompts_sha256"] != prompts_sha256:
        raise RunError(
            f"{folder} was made with other prompts: a file of them, or presafe's own, changed since.", CHOOSE
        )
    manifest = with_this_session(manifest, engine)
    write_json(folder / "manifest.json", manifest)
    return manifest


def check_same_recipe(folder: Path, stored: Recipe, recipe: Recipe) -> None:
    """Check that a folder's recipe is the one of today.

    The stored recipe was read by today's presafe, so a newer setting has its default on both sides.

    Raises:
        RunError: as `check_same`.
    """
    check_same(folder, stored.model_dump(mode="json"), recipe.model_dump(mode="json"))


def check_same(folder: Path, stored: dict[str, Any], settings: dict[str, Any], option: str = "`out`") -> None:
    """Check that a folder's settings are the ones of today.

    None means "not set", so a folder that is older than a setting can be resumed.

    Args:
        folder: The folder.
        stored: The settings that it was made with.
        settings: The settings of today.
        option: Name of the setting that chooses another folder, for the hint.

    Raises:
        RunError: the folder was made with other settings; all that differ are named.
    """
    if changes := describe_changes(stored, settings):
        raise RunError(f"{folder} was made with other settings ({changes}).", f"Choose another folder with {option}.")


def describe_changes(before: Any, after: Any) -> str:
    """Return the keys whose values differ, each with both values, on one line; "" if none does."""
    return ", ".join(_differences(before, after))


def _differences(before: Any, after: Any, key: str = "") -> list[str]:
    """Return the keys whose values differ, each with both values."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = sorted(before.keys() | after.keys())
        triples = [(name, before.get(name), after.get(name)) for name in names]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        triples = [(str(place), *pair) for place, pair in enumerate(zip(before, after, strict=True))]
    else:
        return [] if before == after else [f"{key}: {_shown(before)} → {_shown(after)}"]
    return [
        difference
        for name, old, new in triples
        for difference in _differences(old, new, f"{key}.{name}".removeprefix("."))
    ]


def _shown(value: Any) -> str:
    return "not set" if value is None else f"{value!r:.40}"
