"""Types of settings with their bounds, for recipes, studies, families and options.

Numbers are strict: `true`, "3" and 3.0 are not whole numbers. A number out of these bounds is a typing error, or more
than the libraries can take.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

from presafe.runtime.reading import MOST, is_printable


class Settings(BaseModel):
    """Base of every table of settings: immutable, its numbers finite; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


MAX_SEED = 2**32 - 1
"""Largest seed that all random generators take; NumPy's has 32 bits."""

_MAX_NAME_BYTES = 180
"""The file name of a log has a time and an id, too, and a file system takes 255 bytes."""


def _check_temperature(temperature: float) -> float:
    if temperature and temperature < 0.001:
        raise ValueError("a temperature is 0, which is greedy, or from 0.001 to 100")
    return temperature


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Check that no value stands twice, and return the values.

    Raises:
        ValueError: one does.
    """
    if len(set(values)) < len(values):
        raise ValueError("no value may stand twice")
    return values


def _check_printable(name: str) -> str:
    if not is_printable(name):
        raise ValueError("a name holds no line break and no other control character")
    return name


def checked_suite_name(name: str) -> str:
    """Check that a log can have the name of a suite in its file name, and return the name.

    Raises:
        ValueError: it is blank or long, or holds a slash or a control character.
    """
    if not name.strip() or "/" in name or len(_check_printable(name).encode()) > _MAX_NAME_BYTES:
        raise ValueError(f"the name of a suite is not blank, holds no slash, and has at most {_MAX_NAME_BYTES} bytes")
    return name


Positive = Annotated[int, Strict(), Field(ge=1, le=MOST)]
Count = Annotated[int, Strict(), Field(ge=0, le=MOST)]
Seed = Annotated[int, Strict(), Field(ge=0, le=MAX_SEED)]
Rate = Annotated[float, Strict(), Field(gt=0, le=10, allow_inf_nan=False)]
"""A learning rate."""
Weight = Annotated[float, Strict(), Field(ge=0, le=1e6, allow_inf_nan=False)]
"""Weight of a term in a loss."""
Share = Annotated[float, Strict(), Field(ge=0, lt=1, allow_inf_nan=False)]
Temperature = Annotated[float, Strict(), Field(ge=0, le=100, allow_inf_nan=False), AfterValidator(_check_temperature)]
"""0 is greedy decoding. Logits are divided by at least 0.001: with less they overflow in float32."""
TopP = Annotated[float, Strict(), Field(ge=1e-6, le=1, allow_inf_nan=False)]
"""Nucleus mass kept; 1 keeps all. Below 10^-6 float32 rounds it to nothing, and no token would be left."""
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_printable)]
"""Name in titles and tables."""
Tracker = Literal["tensorboard", "wandb", "trackio"]
"""An experiment tracker."""
CallbackName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", max_length=200)]
"""A class of an importable module, "package.module:Class"."""
SuiteName = Annotated[str, AfterValidator(checked_suite_name)]
"""Name of a suite, which is also in the name of its log."""
