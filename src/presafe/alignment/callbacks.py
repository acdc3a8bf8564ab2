"""A user's own callbacks of transformers' Trainer (`align.callbacks`), by module and class."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from presafe.errors import RecipeError

_HINT = "Name a class of an installed package, or of a folder in PYTHONPATH, as package.module:Class."


def own_callbacks(names: Sequence[str]) -> list[Any]:
    """Return a new callback of each class.

    Args:
        names: The recipe's, as "package.module:Class". Their modules are imported, and run as any program of the user.

    Raises:
        RecipeError: a module cannot be imported, it has no such class, the class is no `TrainerCallback`, or it cannot
            be made without arguments.
    """
    return [_own_callback(name) for name in names]


def _own_callback(name: str) -> Any:
    from transformers import TrainerCallback

    module_name, _, class_name = name.partition(":")
    try:
        kind = getattr(import_module(module_name), class_name, None)
    except Exception as error:  # whatever the user's module raises
        raise RecipeError(f"align.callbacks names {name}, and {module_name} {_reason(error)}.", _HINT) from error
    if not (isinstance(kind, type) and issubclass(kind, TrainerCallback)):
        what = "which is no TrainerCallback of transformers" if kind is not None else "which is not in that module"
        raise RecipeError(f"align.callbacks names {name}, {what}.", _HINT)
    try:
        return kind()
    except Exception as error:  # as above
        raise RecipeError(
            f"align.callbacks names {name}, which {_reason(error)}.", "Let it take no argument."
        ) from error


def _reason(error: Exception) -> str:
    return f"raised {type(error).__name__}: {' '.join(str(error).split()):.200}"
