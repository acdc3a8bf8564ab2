"""Read what the operator has set: the gate file that `presafe gate calibrate` writes, and the environment.

PRESAFE_GATE          path of the gate file; without it the plug-in does nothing
PRESAFE_GATE_MODELS   "NAME=MODE,NAME=MODE": what is done for each served name; every other name is closed (404).
                      Modes: monitor (read, answer), gate (read, refuse at the threshold), open (not read).
                      Without it, every name with the weights of the gate file is monitored.
PRESAFE_GATE_UNREAD   what a gated name does where no decision was read: refuse (default), answer, or 503
PRESAFE_GATE_AUDIT    file for one JSON line per request; without it there is none
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

GATE_VARIABLE = "PRESAFE_GATE"
RUN_VARIABLE = "PRESAFE_GATE_RUN"
"""Set by `register`: folder of the pipes between the workers and the API server."""
_MAX_BYTES = 2**20
"""Largest gate file; one of 1,000 ids has about 10 kB."""

Mode = Literal["monitor", "gate", "open"]
Unread = Literal["refuse", "answer", "503"]
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
    """The refusal as text, for answers that the middleware writes itself."""


class Settings(BaseModel):
    """The gate file and the environment."""

    model_config = ConfigDict(frozen=True)

    gate: Gate
    folder: Path
    """Folder of the gate file."""
    modes: dict[str, Mode]
    """Mode of each served name; empty: monitor what has the gate's weights."""
    unread: Unread
    audit: Path | None

    @property
    def is_gating(self) -> bool:
        """Return whether any name is gated."""
        return "gate" in self.modes.values()

    @property
    def head(self) -> Path:
        """Return the path of the head's file."""
        return self.folder / self.gate.head


@functools.cache
def read_settings() -> Settings | None:
    """Return what the operator has set, read once per process; None without PRESAFE_GATE.

    Raises:
        GateError: the gate file or a variable is wrong, or the head is another one than the gate file's.
    """
    path = os.environ.get(GATE_VARIABLE)
    return None if not path else settings_from(Path(path), os.environ)


def settings_from(path: Path, environment: Any) -> Settings:
    """Return the settings of a gate file and an environment.

    Args:
        path: The gate file.
        environment: Mapping of variables.

    Raises:
        GateError: as `read_settings`.
    """
    gate = _read_gate(path)
    unread: Any = environment.get("PRESAFE_GATE_UNREAD") or "refuse"
    if unread not in get_args(Unread):
        raise GateError(f"PRESAFE_GATE_UNREAD is {unread!r}; it may be refuse, answer or 503.")
    audit = environment.get("PRESAFE_GATE_AUDIT")
    settings = Settings(
        gate=gate,
        folder=path.parent,
        modes=_read_modes(environment.get("PRESAFE_GATE_MODELS") or ""),
        unread=unread,
        audit=Path(audit) if audit else None,
    )
    if sha256_of(settings.head) != gate.head_sha256:
        raise GateError(f"{settings.head} is another head than {path} was written for. Calibrate again.")
    return settings


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file.

    Raises:
        GateError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise GateError(f"cannot read {path}: {error.strerror}.") from error


def _read_gate(path: Path) -> Gate:
    """Read a gate file.

    Raises:
        GateError: it cannot be read, or is no gate file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise GateError(f"cannot read {path}: {error.strerror}.") from error
    if len(content) > _MAX_BYTES:
        raise GateError(f"{path} has more than {_MAX_BYTES} bytes: it is no gate file.")
    try:
        return Gate.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise GateError(f"{path} is no gate file that can be used: {where}: {first['msg']}.") from error


def _read_modes(text: str) -> dict[str, Mode]:
    """Return the mode of each name in "NAME=MODE,NAME=MODE".

    Raises:
        GateError: a part is not NAME=MODE, or a name stands there twice.
    """
    modes: dict[str, Mode] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, mode = part.rpartition("=")
        if not name or mode not in get_args(Mode):
            raise GateError(f"PRESAFE_GATE_MODELS: {part!r} is not NAME=monitor, NAME=gate or NAME=open.")
        if name in modes:
            raise GateError(f"PRESAFE_GATE_MODELS names {name!r} twice.")
        modes[name] = mode  # type: ignore[assignment]
    return modes
