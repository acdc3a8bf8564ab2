"""Run a command in a process group of its own, and end all of it when our end of a pipe closes: also on SIGKILL.

    python -I -S guard.py COMMAND...      standard input is the pipe; its other end is held by the process that asks

This file is run as a script, by any Python, and imports only the standard library. If the guard itself is killed, the
kernel ends its child on Linux (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

_LOOK_S = 0.2
"""Seconds between two looks at the command."""
_GRACE_S = 20.0
"""Seconds that the command has to end by itself."""
_REST_S = 2.0
"""Seconds that what it started has after its own end."""
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the command until it ends or standard input closes; return its exit code, 128 + n after signal n."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    guard = os.getpid()
    child = subprocess.Popen(
        sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=lambda: _end_with(guard)
    )
    try:
        while child.poll() is None and not select.select([0], [], [], _LOOK_S)[0]:
            pass  # what can be read is the end: nothing is written into the pipe
    finally:
        _end(child)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the command's process group."""
    with suppress(ProcessLookupError):  # none of the group is left
        os.killpg(child.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
        deadline = time.monotonic() + _REST_S
        while time.monotonic() < deadline:
            os.killpg(child.pid, 0)
            time.sleep(_LOOK_S / 4)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _end_with(guard: int) -> None:
    """Have the kernel end this process when the guard ends."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
