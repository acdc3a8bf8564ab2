"""What made a run: settings, code, versions, machine. Written once, when the run folder is created."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("presafe", "torch", "transformers", "peft", "trl", "accelerate", "datasets", "inspect-ai")


def build_manifest(settings: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a run that starts now.

    Args:
        settings: The resolved recipe, as JSON.

    Returns:
        Recipe hash, commit (None outside a checkout), package versions, machine, time of day (UTC), and a sha256
        of every local file that the recipe reads prompts from.
    """
    canonical = json.dumps(settings, sort_keys=True).encode()
    return {
        "schema": 1,
        "recipe_sha256": hashlib.sha256(canonical).hexdigest(),
        "commit": _commit(),
        "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "machine": {"system": platform.system(), "processor": platform.machine(), "cpus": os.cpu_count()},
        "inputs": {str(path): _sha256(path) for path in sorted(_files(settings)) if path.is_file()},
    }


def _files(settings: Any) -> set[Path]:
    """Every value under a key `file`, wherever it stands."""
    if isinstance(settings, dict):
        own = {Path(settings["file"])} if isinstance(settings.get("file"), str) else set()
        return own.union(*(_files(value) for value in settings.values()))
    if isinstance(settings, list):
        return set().union(*(_files(value) for value in settings))
    return set()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _commit() -> str | None:
    """The commit of the checkout this code runs from, with "+changes" where it is not clean."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("ls-files", "--full-name", __file__)).name != Path(__file__).name:
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
