"""Names of methods, attacks and defenses in settings: checked where they are read; the latter two stored as labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from presafe.attacks.registry import attack_label, attacks, defense_label, read_attack
from presafe.config.bounds import Settings, distinct
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


def type_of(label: str) -> str:
    """Return the type of an attack: its name without settings."""
    return label.partition(":")[0]


class Hardening(Settings):
    """Alignment rows of attacked queries (`alignment/hardening.py`)."""

    attacks: tuple[AttackName, ...] = Field(min_length=1)
    """Attacks that rows are made with; those that change the request alone."""
    held_out: tuple[str, ...] = ()
    """Types of attacks that no row may be made with: the evaluation says what hardening does for attacks that were not
    learned. Each must be one of `evaluate.attacks`."""
    share: float = Field(default=0.25, strict=True, gt=0, le=1)
    """Share of the harmful and of the harmless alignment queries that rows are made of, for each attack."""

    @field_validator("attacks")
    @classmethod
    def _check_attacks(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        for label in labels:
            attack = read_attack(label)
            if attack.place == "search":
                raise ValueError(f"{label} is a search, which needs the trained model")
            if attack.prefill() is not None:
                raise ValueError(f"{label} begins the model's turn, after the decision position")
        return distinct(labels)

    @field_validator("held_out")
    @classmethod
    def _check_types(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in types if name not in attacks()]:
            raise ValueError(f"{unknown[0]!r} is no type of attack; there are: {', '.join(attacks())}")
        return types

    @model_validator(mode="after")
    def _check_apart(self) -> Self:
        if both := [label for label in self.attacks if type_of(label) in self.held_out]:
            raise ValueError(f"{both[0]} is held out: no row may be made with it")
        return self

    def check_measured(self, measured: Sequence[str]) -> None:
        """Check that every held-out type is measured.

        Args:
            measured: Labels of the attacks that the evaluation measures.

        Raises:
            ValueError: one is not.
        """
        if missing := [name for name in self.held_out if name not in map(type_of, measured)]:
            raise ValueError(f"`hardening.held_out`: {missing[0]} is none of `evaluate.attacks`")
