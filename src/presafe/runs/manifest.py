"""What made a run: settings, prompts, code, versions, machine; and each later session with other code or versions."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from presafe.config.files import data_file
from presafe.errors import RunError
from presafe.records import Prompt
from presafe.runs.io import read_json

Origins = Mapping[str, Mapping[str, Any]]
"""Where suites come from, by name."""
PACKAGES = ("presafe", "torch", "transformers", "peft", "trl", "accelerate", "datasets", "inspect-ai")


def build_manifest(settings: dict[str, Any], prompts_sha256: str, origins: Origins | None = None) -> dict[str, Any]:
    """The manifest of a run that starts now.

    Args:
        settings: The resolved recipe, as JSON.
        prompts_sha256: `sha256_of_prompts` of all that the run asks.
        origins: Where its suites come from (`origin_of`), of those that presafe knows.

    Returns:
        The settings, sampling and answers a prompt among them; hashes of them, of the prompts and of each local file
        that they name; where suites come from; time of day (UTC); commit (None outside a checkout), package versions,
        machine.
    """
    named = {name: dict(origin) for name, origin in (origins or {}).items()}
    files = {origin["file"]: origin["sha256"] for origin in named.values() if origin["file"]}
    return {
        "schema": 1,
        "settings": settings,
        "recipe_sha256": sha256_of(settings),
        "prompts_sha256": prompts_sha256,
        "inputs": {name: sha256_of_file(file) for name, file in sorted(_files(settings).items()) if file.is_file()}
        | files,
        "origins": named,
        "created_utc": _now(),
        **_software(),
        "later_sessions": [],
    }


def read_manifest(folder: Path, settings: Any = None) -> dict[str, Any]:
    """Read the manifest of a folder.

    Args:
        folder: One that `create_folder` (`runs/folder.py`) made.
        settings: As `check_manifest`.

    Raises:
        RunError: as `check_manifest`.
    """
    path = folder / "manifest.json"
    return check_manifest(read_json(path), path, settings)


def check_manifest(manifest: dict[str, Any], path: Path, settings: Any = None) -> dict[str, Any]:
    """Check that a manifest is one that `build_manifest` wrote, and that the settings are as they were then.

    Args:
        manifest: What was read.
        path: The file that it was read from.
        settings: Those beside it, for the manifest of an older presafe, which holds none; None checks none.

    Returns:
        The manifest.

    Raises:
        RunError: a part is missing or of another kind, or the settings are not those of the hash.
    """
    sessions = manifest.get("later_sessions")
    wrong = _wrong(manifest, _KINDS | _OF_A_SESSION)
    if not wrong and any(_wrong(session, _OF_A_SESSION) for session in sessions or []):
        wrong = ["later_sessions"]
    if wrong:
        raise RunError(f"{path} is no manifest that presafe wrote: see its {wrong[0]}.", RESTORE)
    settings = manifest.get("settings", settings)
    if settings is not None and sha256_of(settings) != manifest["recipe_sha256"]:
        raise RunError(f"{path} and its settings do not fit: one of them was changed after it was made.", RESTORE)
    return manifest


RESTORE = "Restore it from a copy, or choose another folder with --out."
_KINDS: dict[str, Any] = {"recipe_sha256": str, "prompts_sha256": str, "later_sessions": list}
_OF_A_SESSION: dict[str, Any] = {
    "created_utc": str,
    "commit": str | None,
    "python": str,
    "packages": dict,
    "machine": dict,
}


def _wrong(found: Any, kinds: Mapping[str, Any]) -> list[str]:
    """Return the keys that are missing or whose values are of another kind."""
    if not isinstance(found, dict):
        return list(kinds)
    return [key for key, kind in kinds.items() if key not in found or not isinstance(found[key], kind)]


def with_this_session(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a run that goes on now; a session with other code or versions is added to it."""
    software = _software()
    last = (manifest["later_sessions"] or [manifest])[-1]
    if all(last[key] == value for key, value in software.items()):
        return manifest
    session = {"created_utc": _now(), **software}
    return {**manifest, "later_sessions": [*manifest["later_sessions"], session]}


def made_by(manifest: dict[str, Any]) -> dict[str, Any]:
    """What of a manifest the result of a study's run keeps: commit, versions and machine, of every session."""
    return {key: manifest[key] for key in ("created_utc", "commit", "python", "packages", "machine", "later_sessions")}


def sha256_of(value: Any) -> str:
    """The sha256 of what JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256_of_prompts(groups: Iterable[Sequence[Prompt]]) -> str:
    """The sha256 of what is asked: ids, texts, what is expected and reference answers, group by group."""
    return sha256_of(
        [[(prompt.id, prompt.text, prompt.expect, prompt.target) for prompt in prompts] for prompts in groups]
    )


def sha256_of_file(path: Path) -> str:
    """The sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _software() -> dict[str, Any]:
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "machine": {"system": platform.system(), "processor": platform.machine(), "cpus": os.cpu_count()},
    }


def _files(settings: Any) -> dict[str, Path]:
    """Every value under a key `file`, wherever it stands, and where that file is read."""
    inner = settings.values() if isinstance(settings, dict) else settings if isinstance(settings, list) else ()
    found = {name: path for value in inner for name, path in _files(value).items()}
    if isinstance(settings, dict) and isinstance(name := settings.get("file"), str):
        found[name] = data_file(Path(name))
    return found


def _commit() -> str | None:
    """The commit of the checkout this code runs from, with "+changes" where the package in it is not clean."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("ls-files", "--full-name", __file__)).name != Path(__file__).name:
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
