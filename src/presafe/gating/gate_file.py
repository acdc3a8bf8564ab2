"""Read the gate file that `presafe gate calibrate` writes, and compare files with the hashes in it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_MAX_BYTES = 2**20
"""Largest gate file; one of 1,000 ids has about 10 kB."""

Mode = Literal["monitor", "gate", "open"]
"""What is done for a served name: p is read; p is read and the threshold refuses; nothing is read."""
Unread = Literal["refuse", "answer", "503"]
"""What a gated name does where no decision was read."""
TokenId = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[\w.-]+$")]


class GateError(ValueError):
    """What the operator has set cannot be served."""


class Calibration(BaseModel):
    """Calibrated probability: σ(slope · z + intercept), where p = σ(z)."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    slope: float = Field(gt=0)
    intercept: float


class Gate(BaseModel):
    """A gate file; what else stands in it is evidence for people."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    schema_: Literal[1] = Field(alias="schema")
    head: FileName
    """The head's file, beside the gate file."""
    head_sha256: Sha256
    adapter_sha256: dict[FileName, Sha256] = Field(min_length=1)
    """Files of the adapter that the head was calibrated with."""
    threshold: float = Field(gt=0, lt=1)
    """A gated name refuses at p ≥ this."""
    calibration: Calibration
    decision_tail: tuple[TokenId, ...] = Field(min_length=1, max_length=4096)
    """Ids that every prompt at the decision position ends in."""
    refusal_ids: tuple[TokenId, ...] = Field(min_length=2, max_length=4096)
    """Ids that are forced: the thought is closed, a refusal, the end of the turn."""
    refusal: str = Field(min_length=1, max_length=10_000)
    """The refusal as text, for answers that replace a model's."""


def read_gate(path: Path) -> Gate:
    """Read a gate file, and check that the head beside it is the one that it was written for.

    Args:
        path: The gate file.

    Raises:
        GateError: it cannot be read, is no gate file, or the head is another one.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise GateError(f"cannot read {path}: {error.strerror}.") from error
    if len(content) > _MAX_BYTES:
        raise GateError(f"{path} has more than {_MAX_BYTES} bytes: it is no gate file.")
    try:
        gate = Gate.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise GateError(f"{path} is no gate file that can be used: {where}: {first['msg']}.") from error
    if sha256_of(path.parent / gate.head) != gate.head_sha256:
        raise GateError(f"{path.parent / gate.head} is another head than {path} was written for. Calibrate again.")
    return gate


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file.

    Args:
        path: The file.

    Raises:
        GateError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise GateError(f"cannot read {path}: {error.strerror}.") from error


def problem_of_files(folder: Path, hashes: dict[str, str]) -> str | None:
    """Return how a folder differs from hashes of its files; None if it does not.

    Args:
        folder: The folder.
        hashes: sha256 of each file, by name.

    Raises:
        GateError: a file cannot be read.
    """
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            return f"{folder} has no {name}"
        if sha256_of(folder / name) != expected:
            return f"{folder / name} has another sha256 than it should"
    return None
