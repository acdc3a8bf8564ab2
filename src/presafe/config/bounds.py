"""Types of settings, each with its bounds: what a recipe, a study, a family or an option may hold.

Numbers are strict: `true`, "3" and 3.0 are no whole numbers. Out of these bounds a number is a slip of the keyboard, or
more than the libraries below can take.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

from presafe.runtime.reading import is_printable


class Settings(BaseModel):
    """Base of every table of settings: immutable, its numbers finite; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


MOST = 2**31 - 1
"""Largest whole number."""
MAX_SEED = 2**32 - 1
"""Largest seed that all random generators take; NumPy's has 32 bits."""

_MAX_NAME_BYTES = 180
"""Beside it the name of a log has a time and an id, and a file system takes 255 bytes."""


def _divides(temperature: float) -> float:
    if temperature and temperature < 0.001:
        raise ValueError("a temperature is 0, which is greedy, or from 0.001 to 100")
    return temperature


def _on_one_line(name: str) -> str:
    if not is_printable(name):
        raise ValueError("a name holds no line break and no other control character")
    return name


def checked_suite_name(name: str) -> str:
    """Return the name of a suite, if a log can carry it.

    Raises:
        ValueError: it is blank or long, or holds a slash or a control character.
    """
    if not name.strip() or "/" in name or len(_on_one_line(name).encode()) > _MAX_NAME_BYTES:
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
Temperature = Annotated[float, Strict(), Field(ge=0, le=100, allow_inf_nan=False), AfterValidator(_divides)]
"""0 is greedy decoding. What logits are divided by is at least 0.001: by less, they overflow in float32."""
TopP = Annotated[float, Strict(), Field(ge=1e-6, le=1, allow_inf_nan=False)]
"""Nucleus mass kept; 1 keeps all. Less than 10^-6 is nothing to float32, and no token would be left."""
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_on_one_line)]
"""Name in titles and tables."""
SuiteName = Annotated[str, AfterValidator(checked_suite_name)]
"""Name of a suite, which is also that of its log."""
