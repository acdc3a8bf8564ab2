"""Free memory between two pieces of work, so that the largest piece sets a run's peak; and measure free memory."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

import psutil

_CONTAINER = Path("/sys/fs/cgroup")
"""Folder in which Linux states a container's limits (cgroup v2)."""


def free_memory() -> None:
    """Collect unused objects, and return the freed pages to the system.

    A trainer and its model refer to each other, so they stay in memory until they are collected. And glibc keeps freed
    blocks below 32 MiB, in one arena per thread: 3 GB on SmolThink, after responding, training and decoding in one
    process.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other C libraries have none
        if trim is not None:
            trim(0)


def free_bytes() -> int:
    """Return the bytes of memory that can be used without swapping, within the limit of a container."""
    machine: int = psutil.virtual_memory().available
    try:
        limit, used = ((_CONTAINER / f"memory.{name}").read_text() for name in ("max", "current"))
        stat = dict(line.split() for line in (_CONTAINER / "memory.stat").read_text().splitlines())
        return max(
            0, min(machine, int(limit) - int(used) + int(stat["inactive_file"]))
        )  # cached files are dropped first
    except (OSError, ValueError, KeyError):  # no limit: its file is not there, or says "max"
        return machine
