"""Names of methods, attacks and defenses in settings: checked where they are read; the latter two stored as labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator

from presafe.attacks.registry import attack_label, defense_label
from presafe.errors import AttackError
from presafe.methods.registry import methods


def _labeled(label: Callable[[str], str]) -> Callable[[str], str]:
    """Return the validator of a label, whose errors are those of settings."""

    def check(text: str) -> str:
        try:
            return label(text)
        except AttackError as error:
            raise ValueError(str(error).removesuffix(".")) from error

    return check


def _check_method(name: str) -> str:
    if name not in methods():
        raise ValueError(f"no method of this name; there are: {', '.join(methods())}")
    return name


MethodName = Annotated[str, AfterValidator(_check_method)]
"""Name of a method: `presafe list methods`."""
AttackName = Annotated[str, AfterValidator(_labeled(attack_label))]
"""Name of an attack, with its settings: `presafe list attacks`."""
DefenseName = Annotated[str, AfterValidator(_labeled(defense_label))]
"""Name of a defense, with its settings: `presafe list defenses`."""
