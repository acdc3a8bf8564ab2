"""Pieces of work side by side, each in a process with its share of this machine's cores.

Much of a training step of a small model is too small to be shared by cores: on two of them, two trainings of one thread
each take three quarters of the time that they take one after the other with both.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol

from presafe.errors import RunError


class ForEach(Protocol):
    """Does a piece of work for every item; returns when all of it is done."""

    def __call__(self, work: Callable[[Any], None], items: Sequence[Any]) -> None: ...


@contextmanager
def side_by_side(at_once: int) -> Iterator[ForEach]:
    """Processes that live as long as the block, or none: one item at a time is worked on here.

    The first error ends all of them and is raised here. Work and items are pickled. They end with this process, too,
    however it ends. On a terminal they write lines, where this process would draw a bar.

    Args:
        at_once: How many items are worked on at a time, at most the number of torch's threads.

    Raises:
        RunError: a process was killed.
    """
    if at_once < 2:
        yield _one_after_another
        return
    import torch

    begin = (torch.get_num_threads() // at_once,)
    with ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn"), _begin, begin) as pool:

        def for_each(work: Callable[[Any], None], items: Sequence[Any]) -> None:
            for _ in pool.map(work, items):
                pass

        try:
            yield for_each
        except BrokenProcessPool as error:
            raise RunError(
                "one of the processes that train side by side was killed.",
                "Where memory is short, OMP_NUM_THREADS=1 trains one after the other. What is done is kept.",
            ) from error
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _one_after_another(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    for item in items:
        work(item)


def _begin(num_threads: int) -> None:
    import torch

    torch.set_num_threads(num_threads)
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
