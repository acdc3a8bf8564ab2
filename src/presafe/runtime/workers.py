"""Pieces of work side by side, each in a process with its share of this machine's cores.

Much of a training step of a small model is too small to be shared by cores: on two of them, two trainings of one thread
each take three quarters of the time that they take one after the other with both.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol

from presafe.errors import RunError


class ForEach(Protocol):
    """Does a piece of work for every item; returns when all of it is done."""

    def __call__(self, work: Callable[[Any], None], items: Sequence[Any]) -> None: ...


@contextmanager
def worker_pool(at_once: int) -> Iterator[ForEach]:
    """Processes that live as long as the block, or none: one item at a time is worked on here.

    The first error ends all of them and is raised here. Work and items are pickled, so both are of modules that can be
    imported. They end with this process, too, however it ends. On a terminal they write lines, where this process
    would draw a bar.

    Args:
        at_once: How many items are worked on at a time, at most the number of torch's threads.

    Raises:
        RunError: a process ended without a word, as one does that is killed.
    """
    if at_once < 2:
        yield _one_after_another
        return
    import torch

    begin, others = (torch.get_num_threads() // at_once,), set(multiprocessing.active_children())
    with ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn"), _begin, begin) as pool:

        def for_each(work: Callable[[Any], None], items: Sequence[Any]) -> None:
            with _main_hidden():
                begun = [pool.submit(work, item) for item in items]
            for future in wait(begun, return_when=FIRST_EXCEPTION).done:
                future.result()

        try:
            yield for_each
        except BrokenProcessPool as error:
            raise RunError(
                "one of the processes that work side by side ended without a word.",
                "Where memory is short, OMP_NUM_THREADS=1 does one after the other. What is done is kept.",
            ) from error
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Processes that begin here do not run the user's script once more, which may have no guard against it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _one_after_another(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    for item in items:
        work(item)


def _begin(num_threads: int) -> None:
    import torch
    from tqdm import tqdm

    torch.set_num_threads(num_threads)
    tqdm.set_lock(threading.RLock())  # its own is shared with other processes, and left behind by one that is ended
    warnings.filterwarnings("ignore")  # as the command line does
    os.environ["TTY_COMPATIBLE"] = "0"  # two live bars would draw over each other
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A training that went on alone would write where the next run resumes."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
