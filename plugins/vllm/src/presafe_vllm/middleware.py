"""The API server's part: close what goes round the gate, name requests, and give the decision back to the client.

    vllm serve ... --middleware presafe_vllm.middleware.PreSafeMiddleware

A response has the headers `x-presafe-action` and `x-presafe-refuse-probability`, and in JSON the field `presafe`.

    answered      the model answered
    flagged       the model answered, and p is at or above the threshold (monitor)
    refused       the gate refused
    unavailable   no decision was read, and the gate answers 503 then
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

from presafe_vllm.audit import Audit
from presafe_vllm.channel import Inbox, Told
from presafe_vllm.exchange import CHAT, COMPLETIONS, Asked, error_body, refusal_body, with_field
from presafe_vllm.metrics import AUDIT_LOST, DECISIONS, PROBABILITY, UNREAD
from presafe_vllm.rows import ID_KEY, MODE_KEY
from presafe_vllm.served import served_modes
from presafe_vllm.settings import RUN_VARIABLE, GateError, Mode, Settings, read_settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_OPEN = {("GET", path) for path in ("/health", "/ping", "/version", "/metrics", "/metrics/", "/v1/models")}
_ASKED = {("POST", COMPLETIONS), ("POST", CHAT)}
_MAX_BODY = 2**24
"""Largest body in bytes; a prompt of a million tokens has about 4 MB."""

_MOST_IN_HEADER = 64
"""Prompts whose p is in the header; the field has all."""


class Outcome(NamedTuple):
    """What was decided about a request, and what is done."""

    probabilities: list[float]
    num_unread: int
    action: str
    is_replaced: bool
    """Whether the model's answer is dropped."""


def outcome_of(told: list[Told], num_prompts: int, mode: Mode, settings: Settings) -> Outcome:
    """Return what is done with a request.

    Args:
        told: Decisions that the workers told.
        num_prompts: Its distinct prompts.
        mode: Mode of the name that it asks.
        settings: What the operator has set.
    """
    read = [decision.probability for decision in told if decision.probability is not None]
    num_unread = max(0, num_prompts - len(read))
    if mode == "gate":
        if num_unread and settings.unread != "answer":
            action = "refused" if settings.unread == "refuse" else "unavailable"
            return Outcome(read, num_unread, action, True)
        return Outcome(read, num_unread, "refused" if any(one.refused for one in told) else "answered", False)
    is_flagged = any(probability >= settings.gate.threshold for probability in read)
    return Outcome(read, num_unread, "flagged" if is_flagged else "answered", False)


def calibrated(probability: float, settings: Settings) -> float:
    """Return σ(slope · z + intercept) for p = σ(z)."""
    p = min(max(probability, 1e-12), 1 - 1e-12)
    z = settings.gate.calibration.slope * math.log(p / (1 - p)) + settings.gate.calibration.intercept
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


class PreSafeMiddleware:
    """ASGI middleware around vLLM's application.

    Args:
        app: The application.
    """

    def __init__(self, app: Any) -> None:
        self._app, self._settings = app, read_settings()
        self._modes: dict[str, Mode] = {}
        self._inbox: Inbox | None = None
        self._audit: Audit | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if self._settings is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif (route := (scope["method"], scope["path"])) in _OPEN:
            await self._app(scope, receive, send)
        elif route not in _ASKED:
            await _refuse(send, 404, f"{scope['path']} is closed: it does not pass the gate")
        else:
            await self._ask(scope, receive, send)

    async def _live(self, scope: Message, receive: Receive, send: Send) -> None:
        """Check what is served when the application has started; it does not start if that is wrong."""
        problem: GateError | None = None

        async def checked(message: Message) -> None:
            nonlocal problem
            if message["type"] == "lifespan.startup.complete":
                try:
                    self._start(scope["app"].state)
                except GateError as error:
                    problem = error
                    message = {"type": "lifespan.startup.failed", "message": f"presafe-vllm: {error}"}
            elif problem is not None:
                return
            await send(message)

        async def ended() -> Message:
            return await receive() if problem is None else {"type": "lifespan.shutdown"}

        await self._app(scope, ended, checked)
        if problem is not None:
            raise problem

    def _start(self, state: Any) -> None:
        """Check what is served, and open pipe and audit.

        Raises:
            GateError: it is not what the gate file describes.
        """
        assert self._settings is not None
        if RUN_VARIABLE not in os.environ:
            raise GateError("the plug-in was not loaded. Let VLLM_PLUGINS, if it is set, name presafe.")
        self._modes = served_modes(state, self._settings)
        if self._settings.audit is not None:
            self._audit = Audit(self._settings.audit, AUDIT_LOST.inc)
        self._inbox = Inbox(os.environ[RUN_VARIABLE])

    async def _ask(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request for an answer."""
        content = await _read(receive)
        if content is None:
            await _refuse(send, 413, f"a request may have {_MAX_BODY} bytes")
            return
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            await _refuse(send, 400, "the body is no JSON object")
            return
        model = body.get("model")
        mode = self._modes.get(model) if isinstance(model, str) else None
        if mode is None or self._inbox is None:
            await _refuse(send, 404, f"there is no model {model!r}. There are: {', '.join(self._modes)}")
            return
        asked = Asked(scope["path"], body, self._inbox.new_id())
        if mode == "gate" and (problem := _ungateable(asked)):
            await _refuse(send, 400, problem)
            return
        given = body.get("vllm_xargs")
        own = dict(given) if isinstance(given, dict) else {}
        content = json.dumps({**body, "vllm_xargs": own | {ID_KEY: asked.request, MODE_KEY: mode}}).encode()
        headers = [(key, value) for key, value in scope["headers"] if key not in (b"content-length", b"content-type")]
        headers += [(b"content-length", str(len(content)).encode()), (b"content-type", b"application/json")]
        try:
            answer = _Answer(asked, mode, self._settle, send)
            await self._app({**scope, "headers": headers}, _replay(content, receive, answer), answer)
        finally:
            self._inbox.take(asked.request)

    def _settle(self, asked: Asked, mode: Mode) -> tuple[Outcome, dict[str, Any], str]:
        """Return what is done with a request, the field `presafe`, and the refusal; count it and write the audit."""
        assert self._settings is not None
        assert self._inbox is not None
        told = self._inbox.take(asked.request)
        outcome = outcome_of(told, len(asked.prompts), mode, self._settings)
        threshold = self._settings.gate.threshold
        for probability in outcome.probabilities:
            PROBABILITY.labels(asked.model).observe(probability)
        DECISIONS.labels(asked.model, outcome.action).inc()
        if mode != "open":
            UNREAD.labels(asked.model).inc(outcome.num_unread)
        if self._audit is not None:
            self._audit.write(
                time=time.time(),
                request=asked.request,
                model=asked.model,
                prompt_sha256=asked.prompt_sha256,
                p=outcome.probabilities,
                threshold=threshold,
                action=outcome.action,
                unread=outcome.num_unread,
            )
        field = {
            "request": asked.request,
            "action": outcome.action,
            "refuse_probability": outcome.probabilities,
            "calibrated_probability": [calibrated(p, self._settings) for p in outcome.probabilities],
            "threshold": threshold,
            "unread": outcome.num_unread,
        }
        return outcome, field, self._settings.gate.refusal


class _Answer:
    """Sends the model's answer on, once the decision is known: with its first byte.

    Args:
        asked: The request.
        mode: Mode of the name that it asks.
        settle: Returns what is done with it.
        send: Sends to the client.
    """

    def __init__(self, asked: Asked, mode: Mode, settle: Any, send: Send) -> None:
        self._asked, self._mode, self._settle, self._send = asked, mode, settle, send
        self._start: Message | None = None
        self.is_replaced = False
        """Whether the model's answer is dropped."""

    async def __call__(self, message: Message) -> None:
        """Take one message of the application."""
        if self.is_replaced:
            return
        if message["type"] == "http.response.start":
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            start, self._start = self._start, None
            await (self._send_both if start["status"] >= 400 else self._begin)(start, message)

    async def _send_both(self, start: Message, message: Message) -> None:
        """Send what the application sends: an error of its own."""
        await self._send(start)
        await self._send(message)

    async def _begin(self, start: Message, message: Message) -> None:
        """Send the start of an answer with the decision, or another answer."""
        outcome, field, refusal = self._settle(self._asked, self._mode)
        headers = [(b"x-presafe-action", outcome.action.encode())]
        if outcome.probabilities:
            text = ",".join(f"{probability:.6f}" for probability in outcome.probabilities[:_MOST_IN_HEADER])
            headers.append((b"x-presafe-refuse-probability", text.encode()))
        if outcome.is_replaced:
            self.is_replaced = True
            if outcome.action == "unavailable":
                kind, content = b"application/json", error_body("no decision was read", "unread", 503)
            else:
                kind, content = refusal_body(self._asked, refusal, field)
            await _respond(self._send, 503 if outcome.action == "unavailable" else 200, content, kind, headers)
            return
        is_json = dict(start["headers"]).get(b"content-type", b"").startswith(b"application/json")
        if is_json and not message.get("more_body"):
            message = {**message, "body": with_field(message["body"], field)}
            length = str(len(message["body"])).encode()
            kept = [(key, value) for key, value in start["headers"] if key != b"content-length"]
            start = {**start, "headers": [*kept, (b"content-length", length)]}
        await self._send_both({**start, "headers": [*start["headers"], *headers]}, message)


def _ungateable(asked: Asked) -> str | None:
    """Return why a request cannot be gated, or None."""
    if asked.body.get("thinking_token_budget") is not None:
        return "thinking_token_budget overwrites what the gate forces: leave it out"
    if asked.is_streamed and len(asked.prompts) > 1:
        return "several prompts in one stream cannot be gated: send one request for each"
    return None


def _replay(content: bytes, receive: Receive, answer: _Answer) -> Receive:
    """Return a `receive` that gives the changed body once, and a disconnect when the answer is replaced."""
    is_sent = False

    async def replay() -> Message:
        nonlocal is_sent
        if not is_sent:
            is_sent = True
            return {"type": "http.request", "body": content, "more_body": False}
        if answer.is_replaced:
            return {"type": "http.disconnect"}
        return await receive()

    return replay


async def _read(receive: Receive) -> bytes | None:
    """Return the body of a request; None if it is too large."""
    content: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return content
        content += message.get("body", b"")
        if len(content) > _MAX_BODY:
            return None
        if not message.get("more_body"):
            return content


async def _refuse(send: Send, status: int, problem: str) -> None:
    """Send an error."""
    kinds = {400: "invalid_request_error", 404: "NotFoundError", 413: "invalid_request_error"}
    await _respond(send, status, error_body(problem, kinds[status], status), b"application/json", [])


async def _respond(send: Send, status: int, content: bytes, kind: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Send a whole response."""
    own = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": content, "more_body": False})
