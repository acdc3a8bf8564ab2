"""Record what made a run: settings, prompts, code, versions, machine, and later sessions with other ones."""

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
RESTORE = "Restore it from a copy, or choose another folder with `out`."
_KINDS: dict[str, Any] = {"recipe_sha256": str, "prompts_sha256": str, "later_sessions": list}
_SESSION_KINDS: dict[str, Any] = {
    "created_utc": str,
    "commit": str | None,
    "python": str,
    "packages": dict,
    "machine": dict,
}


def build_manifest(
    settings: dict[str, Any],
    prompts_sha256: str,
    origins: Origins | None = None,
    engine: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the manifest of a run that starts now.

    Args:
        settings: The resolved recipe, as JSON.
        prompts_sha256: `sha256_of_prompts` of all that the run asks.
        origins: Where its published suites come from (`origin_of`), by name.
        engine: Where this session samples, as JSON; None is this process.

    Returns:
        The settings; hashes of them, of the prompts and of each local file that the settings name; where suites come
        from; date and time (UTC); commit (None outside a checkout), package versions, machine.
    """
    suites = {name: dict(origin) for name, origin in (origins or {}).items()}
    suite_files = {origin["file"]: origin["sha256"] for origin in suites.values() if origin["file"]}
    inputs = {name: sha256_of_file(file) for name, file in sorted(_files(settings).items()) if file.is_file()}
    return {
        "schema": 1,
        "settings": settings,
        "recipe_sha256": sha256_of(settings),
        "prompts_sha256": prompts_sha256,
        "inputs": inputs | suite_files,
        "origins": suites,
        "created_utc": _now(),
        **_software(),
        **_engine(engine),
        "later_sessions": [],
    }


def read_manifest(folder: Path, settings: Any = None) -> dict[str, Any]:
    """Read the manifest of a folder.

    Args:
        folder: A folder that `create_folder` (`runs/folder.py`) made.
        settings: As `check_manifest`.

    Raises:
        RunError: as `check_manifest`.
    """
    path = folder / "manifest.json"
    return check_manifest(read_json(path), path, settings)


def check_manifest(manifest: dict[str, Any], path: Path, settings: Any = None) -> dict[str, Any]:
    """Check that `build_manifest` wrote a manifest, and that the settings are unchanged since.

    Args:
        manifest: Content of the file.
        path: The file.
        settings: The settings stored beside it, for the manifest of an older presafe, which holds none; None checks
            none.

    Returns:
        The manifest.

    Raises:
        RunError: a part is missing or of another kind, or the settings are not those of the hash.
    """
    wrong_keys = _wrong_keys(manifest, _KINDS | _SESSION_KINDS)
    if not wrong_keys and any(_wrong_keys(session, _SESSION_KINDS) for session in manifest["later_sessions"]):
        wrong_keys = ["later_sessions"]
    if wrong_keys:
        raise RunError(f"{path} is no manifest that presafe wrote: see its {wrong_keys[0]}.", RESTORE)
    settings = manifest.get("settings", settings)
    if settings is not None and sha256_of(settings) != manifest["recipe_sha256"]:
        raise RunError(f"{path} and its settings do not fit: one of them was changed after it was made.", RESTORE)
    return manifest


def _wrong_keys(table: Any, kinds: Mapping[str, Any]) -> list[str]:
    """Return the keys that are missing or whose values are of another kind."""
    if not isinstance(table, dict):
        return list(kinds)
    return [key for key, kind in kinds.items() if key not in table or not isinstance(table[key], kind)]


def _engine(engine: dict[str, Any] | None) -> dict[str, Any]:
    """Return the entry of a session that does not sample in this process."""
    return {"engine": engine} if engine else {}


def with_this_session(manifest: dict[str, Any], engine: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the manifest with this session added, if its code, versions, machine or engine are not the last one's.

    Args:
        manifest: The manifest.
        engine: Where this session samples, as JSON; None is this process.
    """
    software = _software()
    last = (manifest["later_sessions"] or [manifest])[-1]
    if all(last[key] == value for key, value in software.items()) and last.get("engine") == engine:
        return manifest
    session = {"created_utc": _now(), **software, **_engine(engine)}
    return {**manifest, "later_sessions": [*manifest["later_sessions"], session]}


def made_by(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a manifest that the result of a study's run keeps: commit, versions, machine, sessions."""
    return {key: manifest[key] for key in ("created_utc", "commit", "python", "packages", "machine", "later_sessions")}


def sha256_of(value: Any) -> str:
    """Return the sha256 of a value that JSON can hold; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256_of_prompts(groups: Iterable[Sequence[Prompt]]) -> str:
    """Return the sha256 of prompts: ids, texts, expected behavior, references and attacks, group by group.

    A planted prompt is marked; plain prompts hash as before there were planted or attacked ones.
    """

    def asked(prompt: Prompt) -> tuple[object, ...]:
        planted = ["planted"] if prompt.planted else []
        attacked = [prompt.attacked.model_dump(mode="json")] if prompt.attacked else []
        return (prompt.id, prompt.text, prompt.expect, prompt.target, *planted, *attacked)

    return sha256_of([[asked(prompt) for prompt in prompts] for prompts in groups])


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a file's bytes.

    Raises:
        OSError: the file cannot be read.
    """
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
    """Return the paths of all files in settings, by the value of their key `file`."""
    if isinstance(settings, dict):
        values = list(settings.values())
    elif isinstance(settings, list):
        values = settings
    else:
        return {}
    files = {name: path for value in values for name, path in _files(value).items()}
    if isinstance(settings, dict) and isinstance(name := settings.get("file"), str):
        files[name] = data_file(Path(name))
    return files


def _commit() -> str | None:
    """Return the commit of this code's checkout, with "+changes" if the package has uncommitted changes; else None."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("ls-files", "--full-name", __file__)).name != Path(__file__).name:
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
