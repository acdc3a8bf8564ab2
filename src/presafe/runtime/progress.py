"""Show progress on stderr: the work, how much is done, and the time left.

Names, prompts and messages of servers may hold Rich markup, or codes that move the cursor. They are printed as plain
text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from presafe.runtime.reading import printable


class PlainConsole(Console):
    """A console that prints texts as they are written: no markup, no emoji codes, control characters escaped."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return a text for printing, its control characters escaped."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **settings)


console = PlainConsole(stderr=True)


def heading(step: str, details: str = "") -> None:
    """Print the name of a step that begins, in bold, and its details."""
    console.print(Text.assemble((printable(step), "bold"), printable(details)))


class Bar:
    """Progress bar of one piece of work; `advance` may be called from any thread."""

    def __init__(self, progress: Progress, label: str, total: int) -> None:
        self._progress, self._label, self._total = progress, label, total
        self._done = 0
        self._printed_tenths = 0
        self._task = progress.add_task(printable(label), total=total)

    def advance(self, count: int = 1) -> None:
        """Add `count` to what is done. If stderr is not a terminal, a line is printed at each tenth."""
        if not count:
            return
        self._done += count
        self._progress.advance(self._task, count)
        tenths = 10 * self._done // max(self._total, 1)
        if not console.is_terminal and tenths > self._printed_tenths:
            self._printed_tenths = tenths
            (task,) = [task for task in self._progress.tasks if task.id == self._task]
            seconds = task.time_remaining
            time_left = f", about {seconds:.0f} s left" if seconds else ""
            console.print(f"  {self._label}: {self._done}/{self._total}{time_left}")

    @contextmanager
    def part(self, label: str, total: int, check: Callable[[], object]) -> Iterator[Callable[[int], None]]:
        """Show a bar of its own, below this one, for a part of the work; it goes when the part is done.

        Args:
            label: Name of the part.
            total: Number of its items.
            check: Called before the bar advances; it raises to end the part.

        Yields:
            What advances the bar by a number of items.
        """
        part = Bar(self._progress, label, total)

        def advance(count: int) -> None:
            check()
            part.advance(count)

        try:
            yield advance
        finally:
            self._progress.remove_task(part._task)


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Bar]:
    """Show a bar with the time left while the block runs.

    Args:
        label: Name of the work.
        total: Number of its items.
    """
    with Progress(
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        speed_estimate_period=3600,  # a step or a batch of a real model takes minutes
    ) as progress:
        yield Bar(progress, label, total)
