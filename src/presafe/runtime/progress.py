"""Progress on the terminal: what is being done, how far, and the time left. It goes to stderr.

Names, prompts and what servers say may hold Rich markup, or codes that move the cursor. They are printed as they are
written.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        return super().render_str("\n".join(map(printable, text.split("\n"))), **settings)


console = PlainConsole(stderr=True)


def heading(step: str, rest: str = "") -> None:
    """Print that a step begins: its name in bold, then the rest."""
    console.print(Text.assemble((printable(step), "bold"), printable(rest)))


class Bar:
    """One bar; `advance` it from any thread."""

    def __init__(self, progress: Progress, what: str, total: int) -> None:
        self._progress, self._what, self._total, self._done, self._said = progress, what, total, 0, 0
        self._task = progress.add_task(printable(what), total=total)

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
        TextColumn("  {task.description}", markup=False),
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
