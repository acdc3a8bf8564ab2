"""Progress on the terminal: what is being done, how far, and the time left. Everything goes to stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, highlight=False)


class Bar:
    """One bar; `advance` it from any thread."""

    def __init__(self, progress: Progress, what: str, total: int) -> None:
        self._progress, self._what, self._total, self._done, self._said = progress, what, total, 0, 0
        self._task = progress.add_task(what, total=total)

    def advance(self, count: int = 1) -> None:
        """Move on by `count`. Where stderr is no terminal, a line is written at every tenth."""
        if not count:
            return
        self._done += count
        self._progress.advance(self._task, count)
        tenth = 10 * self._done // max(self._total, 1)
        if not console.is_terminal and tenth > self._said:
            self._said = tenth
            left = self._progress.tasks[self._task].time_remaining
            wait = f", about {left:.0f} s left" if left else ""
            console.print(f"  {self._what}: {self._done}/{self._total}{wait}")


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Bar]:
    """A bar with time left while the block runs."""
    columns = (
        TextColumn("  {task.description}"),
        *(BarColumn(), MofNCompleteColumn()),
        *(TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()),
    )
    with Progress(
        *columns,
        console=console,
        disable=not console.is_terminal,
        speed_estimate_period=3600,  # a step or a batch of a real model takes minutes
    ) as progress:
        yield Bar(progress, what, total)
