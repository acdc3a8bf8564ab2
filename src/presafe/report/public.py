"""What of a run's settings may be published: names, and no path of this machine and no host."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from presafe.config.engine import is_served
from presafe.models.address import MADE, hub_id


def base_on_hub(address: str) -> str | None:
    """Return the hub id of an adapter's base, or None for a folder, a file, a server, or a model that we make.

    A model that we make is no hub model: an adapter trained on it means nothing on what it was made from.
    """
    return None if address in MADE else hub_id(address)


def public_address(address: str) -> str:
    """Return what a model or a data set is called in public.

    Hub ids and presafe's own names stay. Of a local path the last part is left, of a served model its name there.
    """
    if is_served(address):
        return address.rpartition("#")[2]
    is_local = address.startswith(("/", ".", "~")) or Path(address).exists()
    return Path(address).name if is_local else address


def public_judge(name: str) -> str:
    """Return the name of a judge or a panel, without the paths of its models."""
    return re.sub(r"(?<==)([^/+=]+)/([^+=]+)", lambda model: f"{model[1]}/{public_address(model[2])}", name)


def without_hosts(text: str) -> str:
    """Return a text with each served model's name in place of its address: "pair:attacker=NAME"."""
    return re.sub(r"https?://[^\s#\"']+#?", lambda host: "" if host[0].endswith("#") else "a server", text)


_PUBLIC: Mapping[str, Callable[[str], str]] = {
    "address": public_address,
    "tokenizer": public_address,
    "encoder": public_address,
    "hub": public_address,
    "file": lambda file: Path(file).name,
    "judge": public_judge,
    "judge_thought": public_judge,
}


def public_settings(settings: Any) -> Any:
    """Return the settings of a recipe without the paths of this machine.

    Args:
        settings: A recipe as JSON data, or a part of one.
    """
    if isinstance(settings, Mapping):
        return {
            key: _PUBLIC[key](value) if key in _PUBLIC and isinstance(value, str) else public_settings(value)
            for key, value in settings.items()
        }
    if isinstance(settings, str):
        return without_hosts(settings)
    return [public_settings(value) for value in settings] if isinstance(settings, list | tuple) else settings
