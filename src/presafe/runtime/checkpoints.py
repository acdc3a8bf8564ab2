"""Resume a training from its last checkpoint, and show its progress."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from presafe.runtime.progress import Bar

_WRITTEN_LAST = "trainer_state.json"
"""File that transformers writes last; a checkpoint without it is incomplete."""


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest complete checkpoint in a folder, or None; incomplete ones after it are deleted."""
    numbered = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    for checkpoint in sorted(numbered, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True):
        if _is_complete(checkpoint / _WRITTEN_LAST):
            return str(checkpoint)
        shutil.rmtree(checkpoint)
    return None


def _is_complete(file: Path) -> bool:
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(state, dict)


def bar_callback(bar: Bar) -> TrainerCallback:
    """Return a trainer callback that advances a progress bar, from the step at which training resumes."""
    from transformers import TrainerCallback

    class Advance(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.advance(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bar.advance()

    return Advance()
