"""Start vLLM from an environment of its own, on a free port of loopback, and end it with this process.

The server is a child of a guard (`runtime/guard.py`), which ends all of its processes when the pipe to this process
closes, however this process ends. What vLLM writes goes to a log; an error shows the log's last error.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
from rich.text import Text

from presafe.config.engine import EngineSettings
from presafe.errors import ModelError
from presafe.models.address import Served
from presafe.runs.io import disk_error
from presafe.runtime import guard
from presafe.runtime.progress import console, progress_bar
from presafe.runtime.reading import printable

TRIED = "0.32."
"""Versions of vLLM that `make test-vllm` starts begin so."""
_START_S = 3600.0
"""Seconds in which a server must be healthy: weights of hundreds of GB are read. Ours."""
_LOOK_S = 0.5
_STOP_S = 40.0
"""Seconds that the guard has to end the server; it kills after 20."""
_TAIL_BYTES = 65_536
_SHOWN = 300
_NOT_INHERITED = (
    "SETUPTOOLS_USE_DISTUTILS",
    "PYTHONPATH",
    "PYTHONHOME",
    "OMP_NUM_THREADS",
    "PRESAFE_API_KEY",
    "PRESAFE_GATE",
)
"""Variables of this process that vLLM must not have."""
_OURS = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
"""Variables that vLLM gets where the user has not set them: on CPUs it would leave a core alone."""
_ERROR = re.compile(r"([\w.]*(?:Error|Exception|Exit)\b:? .+|\berror: .+)")
_ELSEWHERE = "See root cause above"
"""What vLLM's last error says where an earlier one is the reason."""
_FIND_VERSION = """
import importlib.metadata as m
print(next((v for n in ("vllm", "vllm-cpu") for v in [next((d.version for d in m.distributions(name=n)), 0)] if v), ""))
"""


class Weights(NamedTuple):
    """What a server is to serve."""

    source: str
    """Hub id or folder."""
    dtype: str
    trust_remote_code: bool = False


class StartedServer:
    """A vLLM that this process has started.

    Args:
        settings: Its environment, sizes, and more words of its command line.
        weights: What it serves.
        log: File of its output; it is appended to.

    Raises:
        ModelError: there is no vLLM in the environment, or the server ends or is not healthy in time.
        RunError: the log cannot be written.
    """

    def __init__(self, settings: EngineSettings, weights: Weights, log: Path) -> None:
        python = Path(settings.vllm or "").absolute() / "bin" / "python"
        _check_version(python)
        self.log, name, port = log, f"presafe-{secrets.token_hex(4)}", _free_port()
        self.served = Served(f"http://127.0.0.1:{port}/v1", name)
        command = [str(python), *command_of(settings, weights, name, port)]
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            file = log.open("ab")
        except OSError as error:
            raise disk_error(log, error) from error
        with file:
            self._start = file.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=_variables(os.environ),
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def problem(self) -> ModelError | None:
        """Return why the server has ended; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        reason = _last_error(self.log, self._start)
        return ModelError(
            f"vLLM ended with code {code}: {reason}", f"Its log is {self.log}. Finished work is kept: run it again."
        )

    def close(self) -> None:
        """End the server with all of its processes."""
        if self._process.stdin is not None:
            self._process.stdin.close()  # which the guard waits for
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:  # the kernel then ends the server
            self._process.kill()
            self._process.wait()

    def _wait(self) -> None:
        """Wait until the server is healthy.

        Raises:
            ModelError: it ends, or is not healthy in time.
        """
        deadline = time.monotonic() + _START_S
        with progress_bar("vLLM starts", 1) as bar:
            while True:
                if problem := self.problem():
                    raise problem
                if self._is_healthy():
                    bar.advance()
                    return
                if time.monotonic() > deadline:
                    raise ModelError(f"vLLM is not healthy after {_START_S:.0f} s.", f"Read its log, {self.log}.")
                time.sleep(_LOOK_S)

    def _is_healthy(self) -> bool:
        try:
            return httpx.get(self.served.url.removesuffix("v1") + "health", timeout=5.0).status_code == 200
        except httpx.HTTPError:
            return False


def command_of(settings: EngineSettings, weights: Weights, name: str, port: int) -> list[str]:
    """Return the words after vLLM's Python that start the server.

    Args:
        settings: Its sizes, and more words, which come last and so have the last say.
        weights: What it serves.
        name: What it calls the model.
        port: Port of loopback.
    """
    words = ["-m", "vllm.entrypoints.openai.api_server", "--model", weights.source, "--served-model-name", name]
    words += ["--host", "127.0.0.1", "--port", str(port), "--dtype", weights.dtype]
    sizes = {"--tensor-parallel-size": settings.tensor_parallel, "--data-parallel-size": settings.data_parallel}
    words += [word for flag, size in sizes.items() if size > 1 for word in (flag, str(size))]
    return [*words, *(["--trust-remote-code"] if weights.trust_remote_code else []), *settings.arguments]


def _check_version(python: Path) -> None:
    """Check that there is a vLLM, and print a line if its version was not tried.

    Raises:
        ModelError: there is none.
    """
    hint = "Name the folder of an environment with vLLM (`vllm`); `make vllm` builds one for CPUs."
    if not python.is_file():
        raise ModelError(f"there is no environment at {python.parent.parent} (no bin/python).", hint)
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", _FIND_VERSION], capture_output=True, text=True, errors="replace", timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"{python} cannot be run: {error}.", hint) from error
    version = printable(done.stdout.strip())
    if done.returncode != 0 or not version:
        raise ModelError(f"there is no vLLM in the environment at {python.parent.parent}.", hint)
    if not version.startswith(TRIED):
        console.print(Text(f"  vLLM {version} was not tried with presafe; {TRIED}0 was."), soft_wrap=True)


def _variables(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the server."""
    return _OURS | {name: value for name, value in inherited.items() if name not in _NOT_INHERITED}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _last_error(log: Path, start: int) -> str:
    """Return the last line of a log that names an error, or else its last line, shortened.

    Args:
        log: The log.
        start: Where this server's part of it begins, in bytes.
    """
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return "its log cannot be read."
    return shown_error(lines)


def shown_error(lines: Sequence[str]) -> str:
    """Return the last line that names an error, or else the last line; shortened, without control characters.

    Args:
        lines: End of a log.
    """
    written = [line.strip() for line in lines if line.strip()]
    errors = [match[1] for line in written if (match := _ERROR.search(line)) and _ELSEWHERE not in line]
    line = (errors or written or ["it wrote nothing"])[-1]
    return printable(f"{line:.{_SHOWN}}").rstrip(".") + "."
