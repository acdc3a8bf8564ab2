"""Do pieces of work in parallel, each in a process with its share of this machine's cores.

Most operations in a training step of a small model are too small for several cores: on two cores, two trainings in
parallel with one thread each take three quarters of the time of two trainings in sequence with both cores.
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
    """A function that does work for every item, and returns when all is done."""

    def __call__(self, work: Callable[[Any], None], items: Sequence[Any]) -> None:
        """Do the work for every item."""


@contextmanager
def worker_pool(num_workers: int) -> Iterator[ForEach]:
    """Start worker processes for the block; with fewer than 2 workers, this process does the work.

    The first error of a worker ends all workers and is raised here. Work and items are pickled, so both must come from
    modules that can be imported. The workers end when this process ends, however it ends. On a terminal they print
    lines instead of bars.

    Args:
        num_workers: Number of items in work at the same time, at most the number of torch's threads.

    Yields:
        A function that does work for every item.

    Raises:
        RunError: a worker died, for example because it was killed.
    """
    if num_workers < 2:
        yield _do_in_sequence
        return
    import torch

    threads_per_worker = torch.get_num_threads() // num_workers
    other_children = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, _set_up_worker, (threads_per_worker,)) as pool:

        def for_each(work: Callable[[Any], None], items: Sequence[Any]) -> None:
            with _main_hidden():
                futures = [pool.submit(work, item) for item in items]
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()

        try:
            yield for_each
        except BrokenProcessPool as error:
            raise RunError(
                "a worker process died unexpectedly (for example, it was killed).",
                "If memory is short, set OMP_NUM_THREADS=1: then the work is done in sequence. Finished work is kept.",
            ) from error
        except BaseException:
            for process in set(multiprocessing.active_children()) - other_children:
                process.terminate()
            raise


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep new processes from running the user's script again, which may have no guard against that."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _do_in_sequence(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    for item in items:
        work(item)


def _set_up_worker(num_threads: int) -> None:
    """Set the threads, output and signals of a worker process."""
    import torch
    from tqdm import tqdm

    torch.set_num_threads(num_threads)
    tqdm.set_lock(
        threading.RLock()
    )  # the default lock is shared by processes, and one that is killed never releases it
    warnings.filterwarnings("ignore")  # as the command line does
    os.environ["TTY_COMPATIBLE"] = "0"  # two live bars would draw over each other
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the workers
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Wait for the main process to end, then exit: a worker alone would write into the folder that is resumed."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
