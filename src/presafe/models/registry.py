"""Register the model provider with Inspect; torch is not loaded until the provider is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspect_ai.model import modelapi

if TYPE_CHECKING:
    from presafe.models.provider import PreSafeAPI


@modelapi(name="presafe")
def presafe() -> type[PreSafeAPI]:
    """Return the provider of models `presafe/<address>`."""
    from presafe.models.provider import PreSafeAPI

    return PreSafeAPI
