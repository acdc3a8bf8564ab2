"""Start a real vLLM with the plug-in, on loopback, in a session of its own, and end all of its processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil

ENVIRONMENT = Path(os.environ.get("PRESAFE_VLLM", "none"))
MIDDLEWARE = "presafe_vllm.middleware.PreSafeMiddleware"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM can be started with."""
_START_S = 900
"""A busy machine takes minutes for what a quiet one does in one."""
_OWN = ("SETUPTOOLS_USE_DISTUTILS", "PYTHONPATH", "PYTHONHOME", "OMP_NUM_THREADS")
"""Variables of this process that vLLM's must not have."""


class Server(NamedTuple):
    """A running vLLM."""

    url: str
    process: subprocess.Popen[bytes]
    audit: Path
    log: Path

    def ask(self, path: str = "/v1/completions", timeout: float = 300, **body: Any) -> httpx.Response:
        """Send a request."""
        return httpx.post(self.url + path, json=body, timeout=timeout)

    def ask_all(self, bodies: list[dict[str, Any]], path: str = "/v1/completions") -> list[httpx.Response]:
        """Send requests at once, as many as the server holds."""
        with ThreadPoolExecutor(64) as pool:
            return list(pool.map(lambda body: self.ask(path, timeout=900, **body), bodies))

    def metrics(self) -> dict[str, float]:
        """Return the counters of this project, by name and labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith("presafe_")
        }


def start_python(words: list[str], log: Path, **variables: str) -> subprocess.Popen[bytes]:
    """Start vLLM's Python in a session of its own, so that all of its processes can be ended."""
    return _start([str(ENVIRONMENT / "bin" / "python"), *words], log, variables)


def _start(command: list[str], log: Path, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    inherited = {name: value for name, value in os.environ.items() if name not in _OWN}
    fixed = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    fixed["VLLM_CPU_NUM_OF_RESERVED_CPU"] = "0"  # else one core of two is left alone
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            env=inherited | fixed | variables,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def start(folder: Path, model: Path, words: list[str], **variables: str) -> Server:
    """Start vLLM on a free port of loopback; do not wait.

    Args:
        folder: Folder of its log, its audit and its temporary files.
        model: The served weights.
        words: More of its command line.
        variables: More of its environment.
    """
    port = _free_port()
    own = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--host", "127.0.0.1"]
    own += ["--port", str(port), "--max-model-len", "1024", "--max-num-seqs", "64"]
    log = folder / "vllm.log"
    process = start_python([*own, *words], log, TMPDIR=str(folder), **variables)
    return Server(f"http://127.0.0.1:{port}", process, folder / "audit.jsonl", log)


def start_line(folder: Path, line: str) -> Server:
    """Start vLLM by a line of the shell, with the environment's programs first, on a free port; do not wait.

    Args:
        folder: Folder of its log.
        line: The line; it may set variables.
    """
    port, log = _free_port(), folder / "vllm.log"
    path = f"{ENVIRONMENT.absolute() / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-c", f"{line} --host 127.0.0.1 --port {port}"]  # the last --port counts
    process = _start(command, log, {"PATH": path, "TMPDIR": str(folder)})
    return Server(f"http://127.0.0.1:{port}", process, folder / "audit.jsonl", log)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def started_by_presafe() -> list[psutil.Process]:
    """Return the running processes of a vLLM that a run has started: those of its guard's children's group."""
    groups = set()
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "--served-model-name" in words and words[words.index("--served-model-name") + 1].startswith("presafe-"):
            groups |= {process, *process.children(recursive=True)}
    return [process for process in groups if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def gated_words(system: Path) -> list[str]:
    """Return the words that serve an aligned system by two names beside its base."""
    rank = json.loads((system / "adapter" / "adapter_config.json").read_text())["r"]
    words = ["--served-model-name", "base", "--dtype", "float32", "--enable-lora", "--max-loras", "2"]
    words += ["--max-lora-rank", str(next(size for size in RANKS if size >= rank))]
    words += ["--lora-modules", f"own={system / 'adapter'}", f"watched={system / 'adapter'}"]
    return [*words, "--middleware", MIDDLEWARE]


def wait(server: Server) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + _START_S
    while True:
        assert server.process.poll() is None, server.log.read_text()[-3000:]
        assert time.monotonic() < deadline, server.log.read_text()[-3000:]
        try:
            if httpx.get(f"{server.url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)


def stop(server: Server) -> None:
    """End a server with all of its processes."""
    try:
        os.killpg(server.process.pid, signal.SIGTERM)
        server.process.wait(60)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass
    finally:
        if server.process.poll() is None:
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
