"""All attacks and defenses by name, and how a text such as `cot_hijacking:words=2000` is read.

    NAME                    with the default settings
    NAME:setting=value,…    with others

A text is stored and shown in one form, its label: without settings that have their default, in the order in which the
attack declares them. Each module of this room declares its own in `ATTACKS` or `DEFENSES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

import presafe.attacks
from presafe.attacks.attack import Attack, Defense, Place
from presafe.errors import AttackError
from presafe.records import Record

R = TypeVar("R", bound=Record)


@cache
def attacks() -> dict[str, type[Attack]]:
    """Return every attack by name: those on the thought, those on the request, searches.

    Raises:
        ValueError: two modules declare the same name.
    """
    places = get_args(Place)
    declared: dict[str, type[Attack]] = _declared("ATTACKS")
    return dict(sorted(declared.items(), key=lambda item: (places.index(item[1].place), item[0])))


@cache
def defenses() -> dict[str, type[Defense]]:
    """Return every defense by name.

    Raises:
        ValueError: two modules declare the same name.
    """
    return dict(sorted(_declared("DEFENSES").items()))


def _declared(table: str) -> dict[str, Any]:
    """Return what the modules of this room declare in a table.

    Raises:
        ValueError: two modules declare the same name.
    """
    by_name: dict[str, Any] = {}
    for module in iter_modules(presafe.attacks.__path__):
        declared = getattr(import_module(f"presafe.attacks.{module.name}"), table, {})
        if repeated := sorted(by_name.keys() & declared.keys()):
            raise ValueError(f"{repeated[0]} is declared twice, the second time in {module.name}")
        by_name |= declared
    return by_name


def read_attack(text: str) -> Attack:
    """Return the attack that a text names.

    Raises:
        AttackError: no such attack, or a setting that is unknown, malformed or out of bounds.
    """
    return _read(text, "attack", attacks())


def read_defense(text: str) -> Defense:
    """Return the defense that a text names.

    Raises:
        AttackError: no such defense, or a setting that is unknown, malformed or out of bounds.
    """
    return _read(text, "defense", defenses())


def attack_label(text: str) -> str:
    """Return the label of the attack that a text names.

    Raises:
        AttackError: as `read_attack`.
    """
    return _label(text, read_attack(text))


def defense_label(text: str) -> str:
    """Return the label of the defense that a text names.

    Raises:
        AttackError: as `read_defense`.
    """
    return _label(text, read_defense(text))


def settings_of(kind: type[Record]) -> str:
    """Return the settings of an attack or defense with their defaults, as a text takes them; "" if it has none."""
    return ",".join(f"{name}={_written(field.default)}" for name, field in kind.model_fields.items())


def _read(text: str, what: str, known: Mapping[str, type[R]]) -> R:
    name, _, rest = text.partition(":")
    if name not in known:
        raise AttackError(f"no {what} {name!r}.", f"There are: {', '.join(known)}.")
    kind = known[name]
    settings: dict[str, object] = {}
    for part in filter(None, rest.split(",")):
        setting, equals, value = part.partition("=")
        if not equals or setting in settings:
            raise AttackError(f"{what} {text!r}: {part!r} is no setting=value, or a second one.", _hint(name, kind))
        settings[setting] = _parsed(value)
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(map(str, first["loc"]))
        problem = "no such setting" if first["type"] == "extra_forbidden" else first["msg"]
        raise AttackError(f"{what} {text!r}: {setting}: {problem}.", _hint(name, kind)) from error


def _hint(name: str, kind: type[Record]) -> str:
    settings = settings_of(kind)
    return f"Its settings are: {settings}." if settings else f"{name} has no settings."


def _parsed(value: str) -> object:
    """Return a value of a text as a number if it is one, or as None."""
    if value == "none":
        return None
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value


def _written(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _label(text: str, entry: Record) -> str:
    name = text.partition(":")[0]
    fields = type(entry).model_fields
    changed = {key: value for key, value in entry.model_dump().items() if value != fields[key].default}
    settings = ",".join(f"{key}={_written(value)}" for key, value in changed.items())
    return f"{name}:{settings}" if settings else name
