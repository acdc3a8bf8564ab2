"""The methods there are: every module of this package that holds a `METHOD`, under the module's name."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import get_args

import presafe.methods
from presafe.methods.method import Kind, Method, Training


@cache
def methods() -> dict[str, Method]:
    """Every method by name: the baseline, PreSafe and its variants, the controls, the rivals."""
    names = [module.name for module in iter_modules(presafe.methods.__path__)]
    held = {name: getattr(import_module(f"presafe.methods.{name}"), "METHOD", None) for name in names}
    found = {name: method for name, method in held.items() if method is not None}
    kinds = get_args(Kind)
    return dict(sorted(found.items(), key=lambda item: (kinds.index(item[1].kind), item[0])))


def training_of(name: str) -> Training:
    """How a method trains; only for one that does."""
    training = methods()[name].training
    assert training is not None, name
    return training


def is_prefill(name: str) -> bool:
    """Whether a system is the model as it came with a prefilled thought; not for "vanilla", which has none."""
    return name in methods() and methods()[name].prefill is not None


def trained(names: tuple[str, ...]) -> list[str]:
    """Those of some methods that are trained."""
    return [name for name in names if methods()[name].training is not None]
