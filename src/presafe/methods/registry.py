"""All methods by name, collected from the `METHODS` of every module in this package."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import get_args

import presafe.methods
from presafe.methods.method import Kind, Method, Training


@cache
def methods() -> dict[str, Method]:
    """Return every method by name: the baseline, PreSafe and its variants, the controls, the rivals.

    Raises:
        ValueError: two modules declare the same name.
    """
    by_name: dict[str, Method] = {}
    for module in iter_modules(presafe.methods.__path__):
        declared: dict[str, Method] = getattr(import_module(f"presafe.methods.{module.name}"), "METHODS", {})
        if repeated := sorted(by_name.keys() & declared.keys()):
            raise ValueError(f"method {repeated[0]} is declared twice, the second time in {module.name}")
        by_name |= declared
    kinds = get_args(Kind)
    return dict(sorted(by_name.items(), key=lambda item: (kinds.index(item[1].kind), item[0])))


def training_of(name: str) -> Training:
    """Return how a method trains.

    Raises:
        ValueError: the method prefills and does not train.
    """
    training = methods()[name].training
    if training is None:
        raise ValueError(f"method {name} does not train")
    return training


def is_prefill(name: str) -> bool:
    """Return whether a system is the base model with a prefilled thought; False for "vanilla", which has none."""
    return name in methods() and methods()[name].prefill is not None


def trained(names: tuple[str, ...]) -> list[str]:
    """Return the methods among `names` that train, in the same order."""
    return [name for name in names if methods()[name].training is not None]
