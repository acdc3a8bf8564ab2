"""The arithmetic judge: is the answer's value that of the reference? `math_values` says what is read and compared.

It compares in another process, since no exception ends 9**9**9 inside the interpreter:

    this process  --question-->  worker, which has loaded the parser  --fork-->  one comparison

A comparison that takes too long, needs too much memory, or ends its process leaves its answer unjudged. So does a
worker that dies, hangs or replies with something else; the next answer starts another.
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
from typing import cast

from presafe.errors import JudgeError
from presafe.judges.math_values import Graded, compare
from presafe.records import Verdict

__all__ = ["Graded", "compare", "grade_math", "judge_math"]

_LIMIT_S = 20.0
"""Time for one answer: 9^9^9^9 would keep the parser busy for ever. Ours."""

_START_S, _GRACE_S = 180.0, 20.0
"""Time for the worker to load the parser; and for its reply, beyond the limit that it keeps itself."""

_MEMORY_BYTES = 4 * 2**30
"""Memory for all answers: such a number would fill it first."""

_VOTE_CHARACTERS = 1000
_REPLY_BYTES = 2**16
"""Longest reply: a vote of that many letters, each at most twelve bytes in JSON, and the verdict."""


def judge_math(answer: str, target: str, *, truncated: bool) -> Verdict:
    """Compare an answer with a reference; see `grade_math`."""
    return grade_math(answer, target, truncated=truncated).verdict


def grade_math(answer: str, target: str, *, truncated: bool) -> Graded:
    """Compare an answer with a reference, in another process, which gives up where it takes too long.

    Args:
        answer: The answer without its thought, in words, numbers or LaTeX.
        target: The reference.
        truncated: Whether the thought was cut off: then there is no answer, and it counts as unjudged.

    Returns:
        "right", "wrong", or "unjudged" for a truncated thought and for an answer that cannot be worked out in
        time and memory. An answer without a number is wrong where the reference is one.

    Raises:
        JudgeError: the worker cannot be started at all.
    """
    return Graded("unjudged", None) if truncated else _WORKER.ask(answer, target)


class _Worker:
    """A process that holds the parser and compares in forks of its own; started at first use, ends with this one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._has_started = False
        self._lock = Lock()

    def ask(self, answer: str, target: str) -> Graded:
        """The worker's verdict; "unjudged" where it took too long or fell over."""
        question = json.dumps([answer, target, _LIMIT_S]).encode() + b"\n"
        with self._lock:
            process, self._process = self._process, None  # kept only after its reply: no later answer gets this one's
            if process is None or process.poll() is not None:
                process = self._started()
            if process is None:
                return Graded("unjudged", None)
            with _killed_after(process, _LIMIT_S + _GRACE_S):
                graded = _read_reply(_exchange(process, question))
            if graded is None:
                _kill(process)
                return Graded("unjudged", None)
            self._process = process
            return graded

    def _started(self) -> subprocess.Popen[bytes] | None:
        """A new worker that has loaded the parser; None where it fails, as it may where memory is short."""
        # A group of its own: Ctrl-C is for us, and a kill reaches the comparison, too.
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
            raise JudgeError("the process that compares sums does not start.", "Its error is printed above.")
        return None


def _exchange(process: subprocess.Popen[bytes], question: bytes) -> bytes:
    """Send a question and read one line; what there is of it where the worker ends before."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(question)
        process.stdin.flush()
    except BrokenPipeError:
        return b""
    return process.stdout.readline(_REPLY_BYTES)


@contextmanager
def _killed_after(process: subprocess.Popen[bytes], limit_s: float) -> Iterator[None]:
    """Kill the process where the block takes longer: its pipes close, and whoever waits for them continues."""
    timer = Timer(limit_s, _kill, [process])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker and its comparison; not where it is reaped: its number may be another's by now."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):  # macOS refuses it for a process that has just ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read_reply(line: bytes) -> Graded | None:
    """A reply as a verdict; None where it is none."""
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
    """Answer questions until the asking process closes the pipe or ends."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    compare("1", "1")  # loading takes seconds, which no answer is charged with
    print("ready", flush=True)
    for line in sys.stdin:
        answer, target, limit_s = json.loads(line)
        reply = _compared_in_time(answer, target, limit_s)
        print(reply if _read_reply(reply.encode()) else json.dumps(["unjudged", None]), flush=True)


def _compared_in_time(answer: str, target: str, limit_s: float) -> str:
    """What `compare` finds, as JSON, in a fork that is killed at the limit; empty where it finds nothing in time."""
    reply_in, reply_out = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(1)  # only the worker replies: where it dies, its pipe closes
            most_s = math.ceil(limit_s) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (most_s, most_s))  # where the worker is gone and kills nothing
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
    """All that a pipe gives to its end; nothing where that is after the deadline, or longer than a reply."""
    data = b""
    while len(data) < _REPLY_BYTES and select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(pipe, _REPLY_BYTES)
        if not chunk:
            return data
        data += chunk
    return b""


if __name__ == "__main__":
    _work()
