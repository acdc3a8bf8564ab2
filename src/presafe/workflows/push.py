"""Publish an adapter on the Hugging Face hub: its weights, its card, and the head if there is one. Nothing else.

Prompts, responses, logs and settings of a run are never sent: the files are chosen by their names, not by leaving out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from presafe.errors import RunError
from presafe.models.adapters import need_adapter
from presafe.report.public import public_address
from presafe.runs.io import read_json
from presafe.stages.cards import CARD, NEW_CARD
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import aligned_systems, system_folder

_OF_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", CARD)
_HEAD = "presafe_head.safetensors"


class SentFile(NamedTuple):
    """One file that is sent: where it lies, its name in the repository, and what is sent if not the file as it is."""

    path: Path
    name: str
    text: str | None = None

    @property
    def num_bytes(self) -> int:
        """Return how many bytes are sent."""
        return self.path.stat().st_size if self.text is None else len(self.text.encode())


def files_to_push(run: RunFolder, name: str) -> list[SentFile]:
    """Return the files of a system that are sent.

    Args:
        run: A run with a report, which writes the card.
        name: Name of a trained system; of its seeds the first is taken.

    Raises:
        RunError: the run trains no such system, or a file is missing.
        ModelError: the adapter cannot be read.
    """
    systems = {system.name: system for system in reversed(aligned_systems(run.recipe))}
    if name not in systems:
        raise RunError(f"{run.path} trains no `system` {name!r}.", f"There are: {', '.join(reversed(systems))}.")
    folder = system_folder(run, systems[name])
    files = [SentFile(folder / "adapter" / file, file) for file in _OF_ADAPTER]
    if missing := [file.path for file in files if not file.path.is_file()]:
        raise RunError(f"{missing[0]} is missing.", f"`presafe report {run.path}` writes the card of an evaluated run.")
    need_adapter(folder / "adapter")
    if (folder / "adapter" / NEW_CARD).exists():
        raise RunError(
            f"{folder / 'adapter' / NEW_CARD} lies beside {CARD}, with newer results.", "Merge the two, and remove it."
        )
    _need_card(folder / "adapter" / CARD)
    files[0] = files[0]._replace(text=_public_config(files[0].path))
    head = SentFile(folder / _HEAD, _HEAD)
    return [*files, head] if head.path.is_file() else files


def check_repository(name: str) -> None:
    """Check the name of a repository on the hub, as the hub does.

    Args:
        name: "ORG/NAME".

    Raises:
        RunError: it is no such name.
    """
    _need_name(name)
    if name.count("/") != 1:
        raise RunError(f"{name!r:.100} names no owner.", "Write ORG/NAME.")


def _need_name(name: str) -> None:
    """Check a name on the hub, with or without an owner.

    Raises:
        RunError: it is no such name.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise RunError(f"{name!r:.100} is no name of a repository.", str(error).splitlines()[0]) from error


def _need_card(path: Path) -> None:
    """Check a card's metadata as the hub does: its author may have changed the file.

    Raises:
        RunError: there is none, it cannot be read, or a base or data set in it is no name on the hub.
    """
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        data = ModelCard.load(path).data.to_dict()
        if data.get("library_name") != "peft" or not data.get("license"):
            raise ValueError("it lacks library_name: peft, or a license")
        for key in ("base_model", "datasets"):
            names = data.get(key) or []
            for name in names if isinstance(names, list) else [names]:
                _need_name(str(name))
    except RunError as error:
        raise RunError(f"{path}: {error.problem}", "Only names on the hub belong there.") from error
    except (ValueError, TypeError, OSError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"{path} has metadata that the hub cannot read ({reason:.150}).",
            "Mend it, or remove the file: `presafe report` writes it again.",
        ) from error


def _public_config(path: Path) -> str | None:
    """Return an adapter's config without the path of its base on this machine; None if it names none."""
    config = read_json(path)
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or public_address(base) == base:
        return None
    return json.dumps(config | {"base_model_name_or_path": public_address(base)}, indent=2) + "\n"


def push(files: list[SentFile], repository: str, *, private: bool = True) -> str:
    """Send files to a repository of models on the hub; it is created if it does not exist.

    Args:
        files: As `files_to_push`.
        repository: "ORG/NAME".
        private: Whether a new repository is private.

    Returns:
        The address of the commit.

    Raises:
        RunError: the hub refuses the name or the account, or cannot be reached.
    """
    from httpx import HTTPError
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        operations = [
            CommitOperationAdd(file.name, str(file.path) if file.text is None else file.text.encode()) for file in files
        ]
        commit = api.create_commit(repository, operations, commit_message="Adapter and card, written by presafe")
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled, HTTPError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(
            f"cannot push to {repository}: {reason.removesuffix('.')}.",
            "Log in with `hf auth login`, and check the name.",
        ) from error
    return str(commit.commit_url)
