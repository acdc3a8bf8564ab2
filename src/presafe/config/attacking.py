"""Names of attacks and defences in settings: checked where they are read, and stored as their labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator

from presafe.attacks.registry import attack_label, defence_label
from presafe.errors import AttackError


def _labeled(label: Callable[[str], str]) -> Callable[[str], str]:
    """Return the validator of a label, whose errors are those of settings."""

    def check(text: str) -> str:
        try:
            return label(text)
        except AttackError as error:
            raise ValueError(str(error).removesuffix(".")) from error

    return check


AttackName = Annotated[str, AfterValidator(_labeled(attack_label))]
"""Name of an attack, with its settings: `presafe list attacks`."""
DefenceName = Annotated[str, AfterValidator(_labeled(defence_label))]
"""Name of a defence, with its settings: `presafe list defences`."""
