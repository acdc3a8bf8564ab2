"""Judge problems with a value: an answer is right if its final value is that of the reference (`math_values`).

Values are compared in another process, because no exception can end 9**9**9 inside the interpreter:

    this process  --question-->  worker, which has loaded the parser  --fork-->  one comparison

If a comparison takes too long, needs too much memory or crashes, its answer is unjudged; so it is if the worker dies,
hangs or sends a malformed reply. The next answer then starts a new worker.
"""

from __future__ import annotations

import json
import math
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Timer
from typing import IO, cast

from presafe.errors import JudgeError
from presafe.judges.math_values import Graded, compare
from presafe.records import Verdict

__all__ = ["Graded", "compare", "grade_math"]

_LIMIT_S = 20.0
"""Time limit (s) of one answer: 9^9^9^9 would keep the parser busy for ever. Ours."""

_START_S = 180.0
"""Time limit (s) of the worker to load the parser."""

_GRACE_S = 20.0
"""Time (s) for the worker's reply beyond the limit of one answer, which the worker itself enforces."""

_MEMORY_BYTES = 4 * 2**30
"""Memory limit of the worker: a huge number fills the memory before its time is up."""

_VOTE_CHARACTERS = 1000
_REPLY_BYTES = 2**16
"""Longest reply: a vote of `_VOTE_CHARACTERS`, each at most 12 bytes in JSON, and the verdict."""


def grade_math(answer: str, target: str, *, truncated: bool) -> Graded:
    """Compare an answer with a reference in another process, with limits of time and memory.

    Args:
        answer: The answer without its thought, in words, numbers or LaTeX.
        target: The reference.
        truncated: Whether the thought was cut: then there is no answer, and it counts as unjudged.

    Returns:
        "right", "wrong", or "unjudged" for a cut thought and for an answer that exceeds the limits, with the value that
        was read. An answer without a number is wrong if the reference is a number.

    Raises:
        JudgeError: the worker cannot be started at all.
    """
    return Graded("unjudged", None) if truncated else _WORKER.ask(answer, target)


class _Worker:
    """A process that holds the parser and compares in its own forks; starts at first use, ends with this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._has_started = False
        self._lock = Lock()

    def ask(self, answer: str, target: str) -> Graded:
        """Return the worker's verdict, or "unjudged" if it took too long or crashed."""
        question = json.dumps([answer, target, _LIMIT_S]).encode() + b"\n"
        with self._lock:
            process, self._process = self._process, None  # kept only after a reply: no later answer gets a late one
            if process is None or process.poll() is not None:
                process = self._start()
            if process is None:
                return Graded("unjudged", None)
            with _killed_after(process, _LIMIT_S + _GRACE_S):
                graded = _read_reply(_exchange(process, question))
            if graded is None:
                _kill(process)
                return Graded("unjudged", None)
            self._process = process
            return graded

    def _start(self) -> subprocess.Popen[bytes] | None:
        """Start a worker and wait for its parser; return None if it fails, for example for lack of memory.

        Raises:
            JudgeError: no worker has ever started.
        """
        # Its own process group: Ctrl-C reaches only this process, and a kill reaches the comparison, too.
        process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
        )
        with _killed_after(process, _START_S):
            is_ready = _exchange(process, b"") == b"ready\n"
        if is_ready:
            self._has_started = True
            return process
        _kill(process)
        if not self._has_started:
            raise JudgeError("the process that compares values does not start.", "Its error is printed above.")
        return None


def _exchange(process: subprocess.Popen[bytes], question: bytes) -> bytes:
    """Send a question and return the line of the reply, which is incomplete if the worker ends early."""
    to_worker, from_worker = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
    try:
        to_worker.write(question)
        to_worker.flush()
    except BrokenPipeError:
        return b""
    return from_worker.readline(_REPLY_BYTES)


@contextmanager
def _killed_after(process: subprocess.Popen[bytes], limit_s: float) -> Iterator[None]:
    """Kill the process if the block takes longer: its pipes close, and a read from them returns."""
    timer = Timer(limit_s, _kill, [process])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker and its comparison, unless it was reaped: another process may have its number by then."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):  # macOS refuses it for a process that has just ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read_reply(line: bytes) -> Graded | None:
    """Return the verdict in a reply, or None if it is malformed."""
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match reply:
        case ["right" | "wrong" | "unjudged" as verdict, str() | None as vote]:
            return Graded(cast(Verdict, verdict), vote)
    return None


_WORKER = _Worker()


def _work() -> None:
    """Answer questions until the parent process closes the pipe or ends."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    compare("1", "1")  # load the parser now: it takes seconds, which must not count for an answer
    print("ready", flush=True)
    for line in sys.stdin:
        answer, target, limit_s = json.loads(line)
        reply = _compared_in_time(answer, target, limit_s)
        print(reply if _read_reply(reply.encode()) else json.dumps(["unjudged", None]), flush=True)


def _compared_in_time(answer: str, target: str, limit_s: float) -> str:
    """Return the result of `compare` as JSON, from a fork that is killed at the limit; empty if it is late."""
    reply_in, reply_out = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(1)  # only the worker holds the pipe, which so closes when the worker dies
            most_s = math.ceil(limit_s) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (most_s, most_s))  # ends this fork even if the worker is gone
            verdict, vote = compare(answer, target)
            reply = json.dumps([verdict, vote and vote[:_VOTE_CHARACTERS]]).encode()
            while reply:
                reply = reply[os.write(reply_out, reply) :]
        finally:
            os._exit(0)
    os.close(reply_out)
    reply = _read_until(reply_in, time.monotonic() + limit_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reply_in)
    return reply.decode(errors="replace")


def _read_until(pipe: int, deadline: float) -> bytes:
    """Read a pipe to its end; return nothing if that comes after the deadline, or is longer than a reply."""
    data = b""
    while len(data) < _REPLY_BYTES and select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(pipe, _REPLY_BYTES)
        if not chunk:
            return data
        data += chunk
    return b""


if __name__ == "__main__":
    _work()
