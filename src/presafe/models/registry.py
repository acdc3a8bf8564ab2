"""The model provider as Inspect registers it, loaded without torch until it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspect_ai.model import modelapi

if TYPE_CHECKING:
    from presafe.models.provider import PreSafeAPI


@modelapi(name="presafe")
def presafe() -> type[PreSafeAPI]:
    """Models as `presafe/<address>`."""
    from presafe.models.provider import PreSafeAPI

    return PreSafeAPI
