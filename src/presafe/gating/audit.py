"""Write one JSON line per request: time, id, name, hash of the prompt, p, threshold, action. Never a text.

The file is rotated at 10 MB, and four old ones are kept: at most 50 MB. A line that the disk does not take is counted
and reported once; requests are answered all the same, because the gate does not need the file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from .gate_file import GateError

_MAX_BYTES = 10_000_000
_NUM_OLD = 4
_log = logging.getLogger("presafe.gate")


class Audit(RotatingFileHandler):
    """An audit file.

    Args:
        path: The file; its folder must exist.
        on_lost: Called for each line that cannot be written.
        max_bytes: Size at which it is rotated.

    Raises:
        GateError: it cannot be opened.
    """

    def __init__(self, path: Path, on_lost: Callable[[], None], max_bytes: int = _MAX_BYTES) -> None:
        try:
            super().__init__(path, maxBytes=max_bytes, backupCount=_NUM_OLD, encoding="utf-8")
        except OSError as error:
            raise GateError(f"cannot write the audit to {path}: {error.strerror}.") from error
        self.setFormatter(logging.Formatter("%(message)s"))
        self._on_lost, self._has_reported = on_lost, False

    def write(self, **values: Any) -> None:
        """Write one line of values that JSON can hold."""
        line = json.dumps(values, allow_nan=False)
        self.handle(logging.LogRecord("audit", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Close the file. Lines that a full disk did not take were counted when they were written."""
        with suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        """Count a line that was not written, and report the first."""
        self._on_lost()
        if not self._has_reported:
            self._has_reported = True
            _log.exception("the audit %s cannot be written; requests are still answered", self.baseFilename)
