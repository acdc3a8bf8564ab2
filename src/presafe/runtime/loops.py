"""Run work with its own event loop, also where a loop runs already, as in Jupyter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


def run_outside_loop(work: Callable[[], T], stop: Callable[[], None] = lambda: None) -> T:
    """Run work in this thread, or in a new one if this thread runs an event loop, and wait for its end.

    Args:
        work: A function that may start an event loop.
        stop: Called on Ctrl-C while a thread works, so that the work ends soon.

    Returns:
        The value that the work returns. Its errors are raised here.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(1) as threads:
        try:
            return threads.submit(copy_context().run, work).result()
        except KeyboardInterrupt:
            stop()
            raise
