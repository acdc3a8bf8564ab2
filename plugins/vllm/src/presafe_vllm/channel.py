"""Bring decisions from the workers to the API server that has the request: one line each, through a named pipe.

A worker writes the line before it samples the token. So the line is in the pipe before the API server sees any output.
A worker that cannot write is told so, and blocks the request where a name is gated (`rows`).
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import secrets
from pathlib import Path
from typing import NamedTuple

_PIPE_BYTES = 2**20
"""Size of the pipe: about 10,000 lines. Every response drains it."""
_MOST_KNOWN = 10_000
"""Requests whose decisions are kept until they are taken; those of requests that went away would stay for ever."""
_READ_BYTES = 2**16
_writers: dict[str, int] = {}


class Told(NamedTuple):
    """What a worker says about one prompt of a request."""

    probability: float | None
    """p, or None where the prompt does not end at the decision position."""
    refused: bool
    """Whether a refusal or the end of the turn is forced."""


def tell(folder: str, request: str, row: str, told: Told) -> bool:
    """Write a decision for the API server; never waits. Return whether it was written.

    Args:
        folder: Folder of the pipes.
        request: The request's id, as `Inbox.new_id` makes it.
        row: Which of its prompts.
        told: The decision.
    """
    name = request.partition("-")[0]
    if not name.isalnum():  # an id that no API server of ours made
        return False
    line = json.dumps([request, row, told.probability, told.refused]) + "\n"
    try:
        if name not in _writers:
            _writers[name] = os.open(f"{folder}/{name}.pipe", os.O_WRONLY | os.O_NONBLOCK)
        os.write(_writers[name], line.encode())
    except OSError:
        return False
    return True


class Inbox:
    """The API server's end of its pipe.

    Args:
        folder: Folder of the pipes.
    """

    def __init__(self, folder: str) -> None:
        self._name, self._count = secrets.token_hex(8), itertools.count()
        self.path = Path(folder) / f"{self._name}.pipe"
        os.mkfifo(self.path, 0o600)
        self._pipe = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)  # also a writer, so that it never ends
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._rest = b""
        self._known: dict[str, dict[str, Told]] = {}

    def new_id(self) -> str:
        """Return a new request's id. It names this pipe."""
        return f"{self._name}-{next(self._count)}"

    def take(self, request: str) -> list[Told]:
        """Return the decisions about a request, the last one for each of its prompts, and forget them.

        A prompt that is computed in chunks has one line per chunk; only the last is at its end.
        """
        self._drain()
        return list(self._known.pop(request, {}).values())

    def close(self) -> None:
        """Close and remove the pipe."""
        os.close(self._pipe)
        self.path.unlink(missing_ok=True)

    def _drain(self) -> None:
        """Read all lines that are in the pipe."""
        try:
            while data := os.read(self._pipe, _READ_BYTES):
                self._rest += data
        except BlockingIOError:
            pass
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            request, row, probability, refused = json.loads(line)
            self._known.setdefault(request, {})[row] = Told(probability, refused)
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]
