"""The ASGI application: three routes that tell about the front, and two that ask the model behind it.

    GET  /health                  200 if the server and the classifier can be asked, else 503
    GET  /v1/models               the one name that may be asked
    GET  /metrics                 decisions, for Prometheus
    POST /v1/completions          read the decision, then answer or refuse
    POST /v1/chat/completions     the same

Everything else is 404. Each request is decided before the server sees it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from presafe.errors import ModelError
from presafe.front.classifier import Classifier
from presafe.front.forward import Upstream, forward
from presafe.front.prompts import Prompt, PromptReader
from presafe.gating.asgi import (
    ASKED,
    MAX_BODY,
    Headers,
    Message,
    Receive,
    Send,
    read_body,
    send_error,
    send_replacement,
    send_whole,
)
from presafe.gating.exchange import Asked
from presafe.gating.gate_file import Gate, Mode, Unread
from presafe.gating.ledger import Ledger
from presafe.gating.metrics import Metrics
from presafe.gating.outcome import Outcome, headers_of, outcome_of
from presafe.models.http import Refused, TryAgain, read_json
from presafe.runtime.progress import console
from presafe.runtime.reading import parse_json

_JSON = b"application/json"
_MOST = 128
"""Largest number of prompts in a request, and of answers to one. Ours."""
_TELL_S = 60.0
"""Seconds between two messages about the classifier. Ours."""
_BODY_S = 60.0
"""Seconds in which a client must have sent its request. Ours."""


class Policy(NamedTuple):
    """What is done with decisions."""

    gate: Gate
    mode: Mode
    unread: Unread


class Reading(NamedTuple):
    """What was read about one prompt: p, or why there is none."""

    probability: float | None
    problem: str = ""


class Front:
    """The application.

    Args:
        policy: What is done with decisions.
        reader: Renders prompts.
        classifier: Gives p.
        upstream: The server that answers.
        routes: Paths that ask it.
        audit: The audit file; None writes none.

    Raises:
        GateError: the audit cannot be opened.
    """

    def __init__(
        self,
        policy: Policy,
        reader: PromptReader,
        classifier: Classifier,
        upstream: Upstream,
        routes: Sequence[str],
        audit: Path | None,
    ) -> None:
        self._policy, self._reader, self._classifier, self._upstream = policy, reader, classifier, upstream
        self._asked = {("POST", path) for path in routes} & ASKED
        self._registry = CollectorRegistry()
        self._ledger = Ledger(policy.gate, Metrics(self._registry), audit)
        self._rendering = ThreadPoolExecutor(1, "presafe-prompts")
        self._silent_until = 0.0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise ValueError(f"the front serves http, got {scope['type']}")
        match (scope["method"], scope["path"]):
            case ("GET", "/health"):
                await self._health(send)
            case ("GET", "/v1/models"):
                await self._models(send)
            case ("GET", "/metrics"):
                await send_whole(send, 200, generate_latest(self._registry), CONTENT_TYPE_LATEST.encode(), [])
            case route if route in self._asked:
                await self._ask(scope, receive, send)
            case _:
                await send_error(send, 404, f"{scope['path']} is closed: it does not pass the gate")

    async def close(self) -> None:
        """Release connections, threads and the audit."""
        await self._classifier.close()
        await self._upstream.close()
        self._rendering.shutdown(wait=False, cancel_futures=True)
        self._ledger.close()

    async def _health(self, send: Send) -> None:
        """Tell whether server and classifier can be asked."""
        try:
            is_up = (await self._upstream.models()).is_success and await self._classifier.is_up()
        except (TryAgain, Refused):
            is_up = False
        await send_whole(send, 200 if is_up else 503, b"", b"text/plain", [])

    async def _models(self, send: Send) -> None:
        """List the one name, as the server does."""
        name = self._upstream.served.name
        try:
            listed = read_json(await self._upstream.models())["data"]
            own = [model for model in listed if isinstance(model, dict) and model.get("id") == name]
        except (TryAgain, Refused, ValueError, KeyError, TypeError):
            await send_error(send, 502, "the server of the model does not list its models")
            return
        await send_whole(send, 200, json.dumps({"object": "list", "data": own}).encode(), _JSON, [])

    async def _ask(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request for an answer; if the client goes away, all that was begun for it is ended."""
        try:
            async with asyncio.timeout(_BODY_S):
                content = await read_body(receive)
        except TimeoutError:
            await send_error(send, 408, f"a request must be sent within {_BODY_S:.0f} s")
            return
        if content is None:
            await send_error(send, 413, f"a request may have {MAX_BODY} bytes")
            return
        body, status, problem = _body_of(content, self._upstream.served.name)
        if body is None:
            await send_error(send, status, problem)
            return
        asked = Asked(scope["path"], body, f"presafe-{secrets.token_hex(12)}")
        work = asyncio.create_task(self._answer(asked, list(scope["headers"]), send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, gone):
                task.cancel()
            results = await asyncio.gather(work, gone, return_exceptions=True)
        if isinstance(results[0], Exception):  # not a cancellation: a bug
            raise results[0]

    async def _answer(self, asked: Asked, headers: Headers, send: Send) -> None:
        """Decide, and answer or forward."""
        policy = self._policy
        readings = await self._read(asked)
        probabilities = [reading.probability for reading in readings if reading.probability is not None]
        refused = any(probability >= policy.gate.threshold for probability in probabilities)
        outcome = outcome_of(
            probabilities, len(readings), policy.mode, policy.gate.threshold, policy.unread, refused=refused
        )
        problems = sorted({reading.problem for reading in readings if reading.probability is None})

        def settle() -> tuple[Headers, dict[str, Any]]:
            return headers_of(outcome), self._settle(asked, outcome, problems)

        if outcome.action in ("refused", "unavailable"):
            _, field = settle()
            await send_replacement(send, asked, outcome, policy.gate.refusal, field)
        else:
            await forward(self._upstream, asked, headers, settle, send)

    def _settle(self, asked: Asked, outcome: Outcome, problems: list[str]) -> dict[str, Any]:
        """Write a decision down, and return the field `presafe`."""
        field = self._ledger.settle(asked, self._policy.mode, outcome)
        return field | ({"unread_because": problems} if problems else {})

    async def _read(self, asked: Asked) -> list[Reading]:
        """Return what is read about each distinct prompt of a request."""
        prompts = await asyncio.get_running_loop().run_in_executor(self._rendering, self._reader.read, asked)
        return list(await asyncio.gather(*map(self._probability, prompts)))

    async def _probability(self, prompt: Prompt) -> Reading:
        """Return p of a prompt, or why there is none; the operator is told once a minute why the classifier fails."""
        if isinstance(prompt, str):
            return Reading(None, prompt)
        try:
            probability = await self._classifier.probability(prompt)
        except ModelError as error:
            if time.monotonic() >= self._silent_until:
                console.print(f"a prompt is unread: {error}")
                self._silent_until = time.monotonic() + _TELL_S
            return Reading(None, "the classifier gave no probability")
        return Reading(probability)


def _body_of(content: bytes, name: str) -> tuple[dict[str, Any] | None, int, str]:
    """Return the body of a request; or None, a status code, and what is wrong."""
    try:
        body = parse_json(content.decode())
    except ValueError as error:
        return None, 400, f"the body is no JSON: {error}"
    if not isinstance(body, dict):
        return None, 400, "the body is no JSON object"
    if (model := body.get("model")) != name:
        return None, 404, f"there is no model {model!r:.80}. There is: {name}"
    prompts, n = body.get("prompt"), body.get("n")
    if isinstance(prompts, list) and len(prompts) > _MOST and not all(type(part) is int for part in prompts):
        return None, 400, f"a request may have {_MOST} prompts"
    if not (n is None or (type(n) is int and 1 <= n <= _MOST)):
        return None, 400, f"n is from 1 to {_MOST}"
    return body, 200, ""


async def _disconnected(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
