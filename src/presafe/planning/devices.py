"""The GPUs that are known, and what is assumed of them and of the data."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from pydantic import Field

from presafe.errors import RecipeError
from presafe.recipe import Settings


class Device(Settings):
    """One GPU, by its maker's data sheet."""

    memory_gib: float
    """Memory in GiB."""
    tflops: float
    """Dense bfloat16 operations in 10¹² a second."""
    bandwidth_gbs: float
    """Memory bandwidth in 10⁹ bytes a second."""


class Assumptions(Settings):
    """What a plan rests on beside formulas."""

    training_utilisation: float = Field(gt=0, le=1)
    """Share of the device's operations that a training step reaches."""
    decoding_efficiency: float = Field(gt=0, le=1)
    """Share of the bound by bandwidth or operations that decoding reaches."""
    answer_share: float = Field(gt=0, le=1)
    """Share of its token budget that an answer uses."""
    prompt_tokens: int = Field(ge=1)
    """Tokens of a query, rendered."""
    refusal_tokens: int = Field(ge=1)
    """Tokens of a refusal that is a target."""
    suite_prompts: int = Field(ge=1)
    """Prompts of a suite whose size the recipe does not say."""
    reserve_gib: float = Field(ge=0)
    """Memory in GiB that is neither weights nor activations."""


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((resources.files("presafe.planning") / "devices.toml").read_text(encoding="utf-8"))


def known_devices() -> dict[str, Device]:
    """Every device by name."""
    return {name: Device.model_validate(fields) for name, fields in _table()["devices"].items()}


def find_device(name: str) -> Device:
    """A device by name.

    Raises:
        RecipeError: it is not known.
    """
    devices = known_devices()
    if name not in devices:
        raise RecipeError(f"no device {name!r}.", f"There are: {', '.join(devices)}.")
    return devices[name]


def assumptions() -> Assumptions:
    """What every plan assumes."""
    return Assumptions.model_validate(_table()["assumptions"])
