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
import os
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict

from presafe_vllm.gating.gate_file import Gate, GateError, Mode, Unread, read_gate

GATE_VARIABLE = "PRESAFE_GATE"
RUN_VARIABLE = "PRESAFE_GATE_RUN"
"""Set by `register`: folder of the pipes between the workers and the API server."""


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
    gate = read_gate(path)
    unread: Any = environment.get("PRESAFE_GATE_UNREAD") or "refuse"
    if unread not in get_args(Unread):
        raise GateError(f"PRESAFE_GATE_UNREAD is {unread!r}; it may be refuse, answer or 503.")
    audit = environment.get("PRESAFE_GATE_AUDIT")
    return Settings(
        gate=gate,
        folder=path.parent,
        modes=_read_modes(environment.get("PRESAFE_GATE_MODELS") or ""),
        unread=unread,
        audit=Path(audit) if audit else None,
    )


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
