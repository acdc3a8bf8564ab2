"""Run presafe in processes that are forked from one that has imported its libraries: a start takes no eight seconds.

    python fork_server.py SOCKET

A forked process gets its words, environment, working directory and output files from the test, and it ends like any
process of Python. What a library reads from the environment while it is imported is the server's, except for the number
of threads that torch takes from OMP_NUM_THREADS.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import IO

SUPPORT = Path(__file__).resolve().parent

IMPORTED_LATE = (
    "datasets",
    "inspect_ai._control.server",
    "inspect_ai.agent._acp.server",
    "inspect_ai.model._openai_responses",
    "presafe.alignment.trainer",
    "presafe.planning.commands",
    "presafe.stages.align",
    "presafe.stages.report",
    "presafe.stages.signal",
    "scipy.stats",
)
"""What a run imports on its way, beside what `import_all` names: five seconds of CPU time in each forked process."""


class Forked:
    """One process of the command line, with what the tests use of `subprocess.Popen`."""

    def __init__(self, words: list[str], folder: Path, variables: dict[str, str]) -> None:
        self.args = words
        self.returncode: int | None = None
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(_server()))
        readers, writers = zip(os.pipe(), os.pipe(), strict=True)
        request = {"words": words, "folder": str(folder), "environment": dict(os.environ) | variables}
        socket.send_fds(self._connection, [json.dumps(request).encode() + b"\n"], list(writers))
        for writer in writers:
            os.close(writer)
        self._replies = self._connection.makefile("r", encoding="ascii")
        self.pid = int(self._replies.readline())
        self.stdout: IO[str] = os.fdopen(readers[0], encoding="utf-8")
        self.stderr: IO[str] = os.fdopen(readers[1], encoding="utf-8")

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process and return its exit code, negative for a signal."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = int(self._replies.readline())
            self._replies.close()
            self._connection.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read both outputs to their ends and wait; a process that takes longer is killed."""
        texts = ["", ""]

        def read(place: int, file: IO[str]) -> None:
            with file:
                texts[place] = file.read()

        readers = [threading.Thread(target=read, args=pair) for pair in enumerate((self.stdout, self.stderr))]
        for reader in readers:
            reader.start()
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            os.kill(self.pid, signal.SIGKILL)
            raise
        for reader in readers:
            reader.join()
        return texts[0], texts[1]


@cache
def _server() -> Path:
    """Start the server of this process, and return its socket; the server ends with this process."""
    file = Path(tempfile.mkdtemp(prefix="presafe-fork-")) / "socket"
    path = os.pathsep.join([str(SUPPORT.parent), str(SUPPORT), *filter(None, sys.path)])
    server = subprocess.Popen(
        [sys.executable, __file__, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert server.stdin is not None
    assert server.stdout is not None
    atexit.register(server.stdin.close)
    assert server.stdout.readline() == b"ready\n", "the fork server did not start"
    return file


def serve(file: str) -> None:
    """Fork a process per connection, and return in each; the server itself ends when its input does."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(file)
        listener.listen()
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for a command
        while True:
            if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
                os._exit(0)
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _fork_command(connection)
                return
            connection.close()


def _fork_command(connection: socket.socket) -> None:
    """Return in the process of a command; the process between it and the server tells the test how it ended."""
    import torch

    text, (stdout, stderr), _, _ = socket.recv_fds(connection, 2**16, 2)
    while not text.endswith(b"\n"):
        text += connection.recv(2**16)
    request = json.loads(text)
    if pid := os.fork():
        os.close(stdout)
        os.close(stderr)
        connection.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    connection.close()
    for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (stdout, 1), (stderr, 2)):
        os.dup2(source, target)
        os.close(source)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C reaches it even if the tests ignore it
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    sys.argv = ["presafe", *request["words"]]


if __name__ == "__main__":
    from faults.server import import_all

    import_all()
    for module in IMPORTED_LATE:
        importlib.import_module(module)
    gc.freeze()
    serve(sys.argv[1])
    from presafe.cli.main import main

    main()
