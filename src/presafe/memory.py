"""Memory given back between two pieces of work, so that a run's peak is that of its largest piece, not of their sum."""

from __future__ import annotations

import ctypes
import gc
import sys


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
