"""Memory given back between two pieces of work, so that a run's peak is that of its largest piece; and what is free."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

import psutil

_CONTAINER = Path("/sys/fs/cgroup")
"""Where Linux tells a container its own limits (cgroup v2)."""


def free_memory() -> None:
    """Collect what nothing refers to any more, and hand the freed pages back to the system.

    A trainer and its model refer to each other, so they outlive the last name for them until they are collected. And
    glibc keeps what was freed in blocks below 32 MiB, scattered over an arena a thread: after responding, training and
    decoding in one process that was 3 GB on SmolThink.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other C libraries have none
        if trim is not None:
            trim(0)


def free_bytes() -> int:
    """Memory that can be taken without swapping: the machine's, or what a container's limit leaves of it."""
    machine: int = psutil.virtual_memory().available
    try:
        limit, used = ((_CONTAINER / f"memory.{name}").read_text() for name in ("max", "current"))
        stat = dict(line.split() for line in (_CONTAINER / "memory.stat").read_text().splitlines())
        return max(0, min(machine, int(limit) - int(used) + int(stat["inactive_file"])))  # files are let go of first
    except (OSError, ValueError, KeyError):  # no limit: its file is not there, or says "max"
        return machine
