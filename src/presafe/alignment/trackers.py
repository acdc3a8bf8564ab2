"""Experiment trackers of a training (`align.report_to`): one run of the tracker for each system that is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from presafe.errors import RecipeError


def check_trackers(names: Sequence[str]) -> None:
    """Check that the packages of trackers are installed.

    Raises:
        RecipeError: one is not.
    """
    for name in names:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # without origin it is a folder, such as the one that wandb writes to
            raise RecipeError(f"align.report_to names {name}, which is not installed.", f"pip install {name}")


def run_name(folder: Path) -> str:
    """Return a system's name in trackers: run folder, stage and system."""
    return "/".join(folder.absolute().parts[-3:])


@contextmanager
def tracked(names: Sequence[str]) -> Iterator[None]:
    """Close wandb's run after a training: it would take the curves of the next system, too.

    Args:
        names: The recipe's trackers. The others close their runs themselves.

    Raises:
        RecipeError: a tracker cannot start, for example because nobody is logged in.
    """
    try:
        yield
    except Exception as error:
        if (name := type(error).__module__.partition(".")[0]) not in names:
            raise
        reason = " ".join(str(error).split())
        raise RecipeError(
            f"{name}, which align.report_to names, failed: {reason:.200}",
            "Log in with `wandb login`, or set WANDB_MODE=offline." if name == "wandb" else "",
        ) from error
    finally:
        if "wandb" in names:
            import_module("wandb").finish()
