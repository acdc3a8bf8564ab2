"""Known GPUs, and assumptions about them and about the data."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from pydantic import Field

from presafe.config.bounds import Settings
from presafe.errors import RecipeError


class Device(Settings):
    """One GPU, with the numbers of its data sheet."""

    memory_gib: float
    """Memory in GiB."""
    tflops: float
    """Dense bfloat16 operations, in 10¹² per second."""
    bandwidth_gbs: float
    """Memory bandwidth, in 10⁹ bytes per second."""


class Assumptions(Settings):
    """Assumptions of a plan, besides its formulas."""

    training_utilization: float = Field(gt=0, le=1)
    """Share of the device's operations per second that a training step reaches."""
    decoding_efficiency: float = Field(gt=0, le=1)
    """Share of the bound set by bandwidth or operations that decoding reaches."""
    answer_share: float = Field(gt=0, le=1)
    """Share of its token budget that an answer uses."""
    prompt_tokens: int = Field(ge=1)
    """Tokens of a query, rendered."""
    refusal_tokens: int = Field(ge=1)
    """Tokens of a refusal used as a target."""
    suite_prompts: int = Field(ge=1)
    """Prompts of a suite whose size the recipe does not give."""
    reserve_gib: float = Field(ge=0)
    """Memory in GiB used by neither weights nor activations."""


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((resources.files("presafe.planning") / "devices.toml").read_text(encoding="utf-8"))


def known_devices() -> dict[str, Device]:
    """Return every known device by name."""
    return {name: Device.model_validate(fields) for name, fields in _table()["devices"].items()}


def find_device(name: str) -> Device:
    """Return a device by name.

    Raises:
        RecipeError: the name is unknown.
    """
    devices = known_devices()
    if name not in devices:
        raise RecipeError(f"no device {name!r}.", f"There are: {', '.join(devices)}.")
    return devices[name]


def assumptions() -> Assumptions:
    """Return the assumptions of every plan."""
    return Assumptions.model_validate(_table()["assumptions"])
