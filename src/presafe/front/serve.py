"""Put a front together, and run it until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import uvicorn

from presafe.config.engine import is_served
from presafe.errors import RunError
from presafe.front.app import Front, Policy
from presafe.front.checks import need_classifier, open_routes
from presafe.front.classifier import Classifier, LocalClassifier, ServedClassifier
from presafe.front.forward import Upstream
from presafe.front.prompts import PromptReader
from presafe.gating.gate_file import GateError, Mode, Unread, problem_of_files, read_gate
from presafe.models.address import raw_server
from presafe.models.decision_head import DecisionHead
from presafe.models.loading import load_renderer
from presafe.runtime.progress import console
from presafe.workflows.export import load_system, run_of

_GRACE_S = 10
"""Seconds in which answers may end after the front was told to stop. Ours."""
_MOST_CONNECTIONS = 1024
"""Connections at once; one more is answered 503. Ours."""
_IDLE_S = 30
"""Seconds after which an idle connection is closed. Ours."""


class FrontSettings(NamedTuple):
    """What the operator has set."""

    server: str
    """Address of the served model, http://host:port#name."""
    gate: Path
    """The gate file, in the folder of its system: RUN/alignment/SYSTEM/gate.json."""
    classifier: str | None
    """Address of the served classifier, or folder of the system; None takes the gate file's own folder."""
    mode: Mode
    unread: Unread
    host: str
    port: int
    """0 takes a free one."""
    audit: Path | None


def serve(settings: FrontSettings) -> None:
    """Check what stands behind the front, then serve until SIGINT or SIGTERM.

    Args:
        settings: What the operator has set.

    Raises:
        RunError: the gate file, its files or the audit cannot be used, or the port cannot be taken.
        ModelError: a server or the classifier is not what the gate file was calibrated on.
    """
    try:
        asyncio.run(_serve(settings))
    except GateError as error:
        raise RunError(str(error)) from error


async def _serve(settings: FrontSettings) -> None:
    """Serve; see `serve`."""
    with listener(settings.host, settings.port) as opened:
        front, closed = await prepare(settings)
        try:
            for path, problem in closed.items():
                console.print(f"{path} is closed: {problem}")
            host, port = opened.getsockname()[:2]
            name = raw_server(settings.server).name
            shown = f"[{host}]" if ":" in host else host
            print(f"http://{shown}:{port}#{name}  {settings.mode}, unread: {settings.unread}", flush=True)
            await _Server(server_config(front)).serve([opened])
        finally:
            await front.close()


async def prepare(settings: FrontSettings) -> tuple[Front, dict[str, str]]:
    """Return the application, and why each route that the server lacks is closed.

    Args:
        settings: What the operator has set.

    Raises:
        GateError: the gate file, its files or the audit cannot be used.
        RunError: the gate file lies in no run.
        ModelError: as `serve`.
    """
    served, folder = raw_server(settings.server), settings.gate.parent
    gate, run = read_gate(settings.gate), run_of(settings.gate.parent)
    if problem := problem_of_files(folder / "adapter", gate.adapter_sha256):
        raise GateError(f"{problem}: {settings.gate} was written for another adapter. Calibrate again.")
    model = run.recipe.model
    renderer = load_renderer(model.address, model.family, model.tokenizer, trust_remote_code=model.trust_remote_code)
    reader = PromptReader(renderer, gate.decision_tail)
    classifier = _classifier(settings, gate.adapter_sha256)
    try:
        problems = await open_routes(served, renderer, reader)
        await need_classifier(classifier, run, settings.gate, renderer)
        routes = [path for path, problem in problems.items() if problem is None]
        policy = Policy(gate, settings.mode, settings.unread)
        front = Front(policy, reader, classifier, Upstream(served), routes, settings.audit)
    except BaseException:
        await classifier.close()
        raise
    return front, {path: problem for path, problem in problems.items() if problem is not None}


def _classifier(settings: FrontSettings, adapter_sha256: dict[str, str]) -> Classifier:
    """Return the classifier that the operator names.

    Raises:
        GateError: a folder's adapter is another one than the gate file's.
        RunError: a folder is no aligned system.
        ModelError: it cannot be loaded, or the address is none.
    """
    named = settings.classifier
    if named is not None and is_served(named):
        return ServedClassifier(raw_server(named))
    folder = settings.gate.parent if named is None else Path(named)
    run_of(folder)
    if problem := problem_of_files(folder / "adapter", adapter_sha256):
        raise GateError(f"{problem}: {folder} is another system than that of {settings.gate}.")
    return LocalClassifier(load_system(folder), DecisionHead(settings.gate.parent))


def server_config(front: Front) -> uvicorn.Config:
    """Return how the application is served: HTTP only, bounded, without a log of requests.

    Args:
        front: The application.
    """
    return uvicorn.Config(
        front,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )


class _Server(uvicorn.Server):
    """Ends in order on SIGINT and SIGTERM; uvicorn's own raises the signal again afterwards."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let signals end the server while the block runs."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    asyncio sends small parts at once (TCP_NODELAY) only where a socket names its protocol, which `create_server` does
    not: every answer would then wait 40 ms.

    Args:
        host: Address of this machine; one with a colon is of IPv6.
        port: 0 takes a free one.

    Raises:
        RunError: the address cannot be taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(_MOST_CONNECTIONS)
    except OSError as error:
        opened.close()
        raise RunError(f"cannot listen on {host}, `port` {port}: {error.strerror}.", "Name another port.") from error
    return opened
