"""The run folder: where each stage leaves what the next one reads.

    runs/<name>/ recipe.json manifest.json timings.json
      responses/   signals/   alignment/<system>/   evaluation/   report/

A finished stage leaves a mark in `stages/`; running again starts at the first stage without one. A folder belongs
to one recipe: results of two never meet in it.
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
from presafe.runs.ownership import check_ownership
from presafe.runtime.progress import console

R = TypeVar("R", bound=Record)


def read_timings(folder: Path) -> dict[str, float]:
    """Return the seconds by what they were spent on, as `timed` adds them up; a damaged file is set aside."""
    path = folder / "timings.json"
    if not os.path.lexists(path):
        return {}
    try:
        timings = read_json(path)
        for what, seconds in timings.items():
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
                raise RunError(f"{path} holds no seconds of {what!r}.")
    except RunError as error:
        set_aside_damaged(path, error.problem, "Times before now are not counted.")
        return {}
    return timings


def set_aside_damaged(path: Path, reason: str, then: str) -> None:
    """Set a damaged file aside and say so in a line.

    Args:
        path: The file.
        reason: What is wrong with it, a sentence.
        then: What that means, a sentence.

    Raises:
        RunError: the folder cannot be written.
    """
    aside = set_aside(path)
    console.print(f"  {reason} It is now {aside.name}. {then}", markup=False, soft_wrap=True)


def read_records(path: Path, kind: type[R], hint: str) -> list[R]:
    """Read records that presafe wrote into a folder.

    Args:
        path: A file with one JSON object a line.
        kind: The kind of record.
        hint: What to do where the file is damaged.

    Raises:
        RunError: the file cannot be read, or a line does not fit the record.
    """
    return read_jsonl(path, kind, error=RunError, hint=hint)


@contextmanager
def timed(folder: Path, what: str) -> Iterator[None]:
    """Add the block's seconds to the folder's timings, also when it fails."""
    start = time.monotonic()
    try:
        yield
    finally:
        timings = read_timings(folder)
        timings[what] = round(timings.get(what, 0.0) + max(0.0, time.monotonic() - start), 1)
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
        raise RunError(f"another process is working in {folder}.", "Wait for it, or choose another --out.") from error
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
) -> dict[str, Any]:
    """Write the manifest of a new folder, then its settings; returns the manifest.

    Raises:
        RunError: as `check_ownership`; or the folder cannot be written.
    """
    check_ownership(folder, settings_file.name)
    manifest = build_manifest(settings, prompts_sha256, origins)
    write_json(folder / "manifest.json", manifest)
    write_json(settings_file, settings)
    return manifest


def resume_folder(folder: Path, settings_file: Path, settings: dict[str, Any], prompts_sha256: str) -> dict[str, Any]:
    """The manifest of a folder that `create_folder` made, with this session in it.

    Raises:
        RunError: the folder was made with other settings or prompts, or its settings were changed since.
    """
    before = read_json(settings_file)
    check_same(folder, before, settings)
    manifest = read_manifest(folder, before)
    if manifest.get("settings", before) != before:
        raise RunError(f"{settings_file} was changed after it was made.", RESTORE)
    return add_session(folder, prompts_sha256)


def add_session(folder: Path, prompts_sha256: str) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if manifest["prompts_sha256"] != prompts_sha256:
        raise RunError(
            f"{folder} was made with other prompts: a file of them, or presafe's own, changed since.",
            "Choose another folder with --out.",
        )
    manifest = with_this_session(manifest)
    write_json(folder / "manifest.json", manifest)
    return manifest


def check_same_recipe(folder: Path, before: Recipe, recipe: Recipe) -> None:
    """Keep results of two recipes apart. The stored one was read by today's presafe, so that a setting that is new
    since then has its default on both sides.

    Raises:
        RunError: as `check_same`.
    """
    check_same(folder, before.model_dump(mode="json"), recipe.model_dump(mode="json"))


def check_same(folder: Path, before: dict[str, Any], settings: dict[str, Any], option: str = "--out") -> None:
    """Keep results of two settings apart. None is "not set": a folder from before there was such a setting goes on.

    Raises:
        RunError: the folder was made with other settings; all that differ are named.
    """
    if changed := describe_changes(before, settings):
        raise RunError(f"{folder} was made with other settings ({changed}).", f"Choose another folder with {option}.")


def describe_changes(before: dict[str, Any], after: dict[str, Any]) -> str:
    return ", ".join(_differences(before, after))


def _differences(before: Any, after: Any, key: str = "") -> list[str]:
    """Keys whose values differ, each with both values."""
    pairs: list[tuple[Any, Any, Any]] | None = None
    if isinstance(before, dict) and isinstance(after, dict):
        pairs = [(name, before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys())]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = [(place, *pair) for place, pair in enumerate(zip(before, after, strict=True))]
    if pairs is not None:
        return [
            found for name, one, other in pairs for found in _differences(one, other, f"{key}.{name}".removeprefix("."))
        ]
    one, other = ("not set" if each is None else f"{each!r:.40}" for each in (before, after))
    return [] if before == after else [f"{key}: {one} → {other}"]
