"""The run folder: where each stage leaves what the next one reads.

    runs/<name>/ recipe.json manifest.json timings.json
      responses/   signals/   alignment/<system>/   evaluation/   report/

A finished stage leaves a mark in `stages/`; running again starts at the first stage without one. A folder belongs
to one recipe: results of two never meet in it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from presafe.errors import RunError
from presafe.manifest import Origins, build_manifest, continued
from presafe.recipe import Recipe, parse_recipe
from presafe.records import disk_error, write_text

Stage = Literal["respond", "signal", "align", "evaluate", "report"]
STAGES: tuple[Stage, ...] = ("respond", "signal", "align", "evaluate", "report")
MEASUREMENT = "measurement.json"
"""Settings of a measurement (`stages/measure.py`), which has a folder of its own."""


class RunFolder:
    """One run on disk.

    Args:
        path: The folder. `open_for` creates or continues one, `existing` reads one.
        recipe: Its settings.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe

    @classmethod
    def open_for(cls, path: Path, recipe: Recipe, prompts_sha256: str, origins: Origins | None = None) -> RunFolder:
        """Create the folder for a recipe and its prompts, or continue one that was made with the same.

        Args:
            path: The folder.
            recipe: The recipe.
            prompts_sha256: As `build_manifest`.
            origins: As `build_manifest`.

        Raises:
            RunError: the folder was made with other settings or prompts, holds something else, or cannot be written.
        """
        run = cls(path, recipe)
        if not run.recipe_path.exists():
            if (path / MEASUREMENT).exists():
                raise RunError(f"{path} holds a measurement, not a run.", "Choose another folder with --out.")
            begin(path, run.recipe_path, recipe.model_dump(mode="json"), prompts_sha256, origins)
        else:
            check_same_recipe(path, cls.existing(path).recipe, recipe)
            _continue(path, prompts_sha256)
        return run

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Read a run folder.

        Raises:
            RunError: there is no run in it.
        """
        if not (path / "recipe.json").exists():
            raise RunError(f"{path} holds no run (no recipe.json).", "Name a folder that `presafe run` wrote.")
        return cls(path, parse_recipe(read_json(path / "recipe.json"), str(path / "recipe.json")))

    @property
    def recipe_path(self) -> Path:
        return self.path / "recipe.json"

    @property
    def manifest_path(self) -> Path:
        return self.path / "manifest.json"

    def manifest(self) -> dict[str, Any]:
        """What made this run."""
        return read_json(self.manifest_path)

    def timings(self) -> dict[str, float]:
        """Seconds spent in each stage, over all sessions that ended in order."""
        return timings_of(self.path)

    def is_done(self, stage: Stage) -> bool:
        return (self.path / "stages" / stage).exists()

    @contextmanager
    def working_on(self, stage: Stage) -> Iterator[None]:
        """Time a stage and, unless it fails, mark it as done."""
        with timed(self.path, stage):
            yield
        write_text(self.path / "stages" / stage, "done\n")


def timings_of(folder: Path) -> dict[str, float]:
    """Seconds by what they were spent on, as `timed` adds them up."""
    path = folder / "timings.json"
    return read_json(path) if path.exists() else {}


@contextmanager
def timed(folder: Path, what: str) -> Iterator[None]:
    """Add the block's seconds to the folder's timings, also when it fails."""
    start = time.monotonic()
    try:
        yield
    finally:
        timings = timings_of(folder)
        timings[what] = round(timings.get(what, 0.0) + time.monotonic() - start, 1)
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


def begin(
    folder: Path,
    settings_file: Path,
    settings: dict[str, Any],
    prompts_sha256: str,
    origins: Origins | None = None,
) -> dict[str, Any]:
    """Write the manifest of a new folder, then its settings; returns the manifest.

    Raises:
        RunError: the folder cannot be written.
    """
    manifest = build_manifest(settings, prompts_sha256, origins)
    write_json(folder / "manifest.json", manifest)
    write_json(settings_file, settings)
    return manifest


def go_on(folder: Path, settings_file: Path, settings: dict[str, Any], prompts_sha256: str) -> dict[str, Any]:
    """The manifest of a folder that `begin` made, with this session in it.

    Raises:
        RunError: the folder was made with other settings or prompts.
    """
    check_same(folder, read_json(settings_file), settings)
    return _continue(folder, prompts_sha256)


def _continue(folder: Path, prompts_sha256: str) -> dict[str, Any]:
    manifest = read_json(folder / "manifest.json")
    if manifest.get("prompts_sha256") != prompts_sha256:
        raise RunError(
            f"{folder} was made with other prompts: a file of them, or presafe's own, changed since.",
            "Choose another folder with --out.",
        )
    manifest = continued(manifest)
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
    if changed := ", ".join(_differences(before, settings)):
        raise RunError(f"{folder} was made with other settings ({changed}).", f"Choose another folder with {option}.")


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all.

    Raises:
        RunError: the folder cannot be written.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read JSON that this project wrote.

    Raises:
        RunError: the file cannot be read, or is not JSON.
    """
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"cannot read {path}: {error}.") from error
    return value


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
