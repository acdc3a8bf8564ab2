"""The API server's part: close what goes round the gate, name requests, and give the decision back to the client.

    vllm serve ... --middleware presafe_vllm.middleware.PreSafeMiddleware

A response has the headers `x-presafe-action` and `x-presafe-refuse-probability`, and in JSON the field `presafe`.
"""

from __future__ import annotations

import json
import os
from typing import Any

from prometheus_client import REGISTRY

from presafe_vllm.channel import Inbox, Told
from presafe_vllm.gating.asgi import ASKED, MAX_BODY, Message, Receive, Send, read_body, send_error, send_replacement
from presafe_vllm.gating.exchange import Asked, with_field
from presafe_vllm.gating.gate_file import GateError, Mode
from presafe_vllm.gating.ledger import Ledger
from presafe_vllm.gating.metrics import Metrics
from presafe_vllm.gating.outcome import Outcome, headers_of, outcome_of
from presafe_vllm.rows import ID_KEY, MODE_KEY
from presafe_vllm.served import served_modes
from presafe_vllm.settings import RUN_VARIABLE, read_settings

_OPEN = {("GET", path) for path in ("/health", "/ping", "/version", "/metrics", "/metrics/", "/v1/models")}
_PAST_THE_GATE = {
    "thinking_token_budget": "overwrites what the gate forces",
    "use_beam_search": "writes without the gate",
    "prompt_logprobs": "shows what the model would write inside the prompt",
    "echo": "shows what the model would write inside the prompt",
}
"""Fields that no request to a gated name may have, and why."""
_METRICS = Metrics(REGISTRY)
"""In vLLM's own registry: its `/metrics` shows them."""


class PreSafeMiddleware:
    """ASGI middleware around vLLM's application.

    Args:
        app: The application.
    """

    def __init__(self, app: Any) -> None:
        self._app, self._settings = app, read_settings()
        self._modes: dict[str, Mode] = {}
        self._inbox: Inbox | None = None
        self._ledger: Ledger | None = None

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
        elif route not in ASKED:
            await send_error(send, 404, f"{scope['path']} is closed: it does not pass the gate")
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
        self._ledger = Ledger(self._settings.gate, _METRICS, self._settings.audit)
        self._inbox = Inbox(os.environ[RUN_VARIABLE])

    async def _ask(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request for an answer."""
        content = await read_body(receive)
        if content is None:
            await send_error(send, 413, f"a request may have {MAX_BODY} bytes")
            return
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            await send_error(send, 400, "the body is no JSON object")
            return
        model = body.get("model")
        mode = self._modes.get(model) if isinstance(model, str) else None
        if mode is None or self._inbox is None:
            await send_error(send, 404, f"there is no model {model!r}. There are: {', '.join(self._modes)}")
            return
        asked = Asked(scope["path"], body, self._inbox.new_id())
        if mode == "gate" and (problem := _ungateable(asked)):
            await send_error(send, 400, problem)
            return
        given = body.get("vllm_xargs")
        own = dict(given) if isinstance(given, dict) else {}
        content = json.dumps({**body, "vllm_xargs": own | {ID_KEY: asked.request, MODE_KEY: mode}}).encode()
        headers = [(key, value) for key, value in scope["headers"] if key not in (b"content-length", b"content-type")]
        headers += [(b"content-length", str(len(content)).encode()), (b"content-type", b"application/json")]
        answer = _Answer(asked, mode, self._inbox.take, self._settle, send)
        try:
            await self._app({**scope, "headers": headers}, _replay(content, receive, answer), answer)
        finally:
            answer.end()

    def _settle(self, asked: Asked, mode: Mode, told: list[Told]) -> tuple[Outcome, dict[str, Any], str]:
        """Return what is done with a request, the field `presafe`, and the refusal; count it and write the audit."""
        assert self._settings is not None
        assert self._ledger is not None
        outcome = outcome_of(
            [decision.probability for decision in told if decision.probability is not None],
            len(asked.prompts),
            mode,
            self._settings.gate.threshold,
            self._settings.unread,
            refused=any(decision.refused for decision in told),
        )
        return outcome, self._ledger.settle(asked, mode, outcome), self._settings.gate.refusal


class _Answer:
    """Sends the model's answer on, once the decision is known: with its first byte.

    A stream of several prompts has no header: its first byte comes when the first of them is read. It is not gated,
    and what was read is counted at its end.

    An answer that must have a form (a JSON schema, a choice) cannot be the tokens of a refusal: vLLM ends it with an
    error at the first of them. Odds of tokens are the model's own, not those of what is forced. In both cases the
    refusal is written here, in place of the whole answer.

    What was read is counted, also where vLLM ends with an error or the client leaves.

    Args:
        asked: The request.
        mode: Mode of the name that it asks.
        take: Returns the decisions that were read.
        settle: Returns what is done with them.
        send: Sends to the client.
    """

    def __init__(self, asked: Asked, mode: Mode, take: Any, settle: Any, send: Send) -> None:
        self._asked, self._mode, self._take, self._settle, self._send = asked, mode, take, settle, send
        self._start: Message | None = None
        self.is_replaced = False
        """Whether the model's answer is dropped."""
        self._told: list[Told] = []
        self._is_settled = False

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
            await self._begin(start, message)

    def end(self) -> None:
        """Count what was read and not counted yet: of a stream of several prompts, an error, or a client that left."""
        told = [*self._told, *self._take(self._asked.request)]
        if told and not self._is_settled:
            self._settled(told)

    def _settled(self, told: list[Told]) -> tuple[Outcome, dict[str, Any], str]:
        """Return what is done with the request, once."""
        self._is_settled = True
        outcome: tuple[Outcome, dict[str, Any], str] = self._settle(self._asked, self._mode, told)
        return outcome

    async def _send_both(self, start: Message, message: Message) -> None:
        """Send what the application sends."""
        await self._send(start)
        await self._send(message)

    async def _begin(self, start: Message, message: Message) -> None:
        """Send the start of an answer with the decision, or another answer."""
        is_error = start["status"] >= 400
        is_late = not is_error and self._asked.is_streamed and len(self._asked.prompts) > 1
        self._told = [] if is_late else self._take(self._asked.request)
        if is_late or (is_error and not any(decision.refused for decision in self._told)):
            await self._send_both(start, message)
            return
        outcome, field, refusal = self._settled(self._told)
        own_words = is_error or self._asked.has_form or self._asked.shows_odds
        if outcome.by_unread or (outcome.action == "refused" and own_words):
            self.is_replaced = True
            await send_replacement(self._send, self._asked, outcome, refusal, field)
            return
        is_json = dict(start["headers"]).get(b"content-type", b"").startswith(b"application/json")
        if is_json and not message.get("more_body"):
            message = {**message, "body": with_field(message["body"], field)}
            length = str(len(message["body"])).encode()
            kept = [(key, value) for key, value in start["headers"] if key != b"content-length"]
            start = {**start, "headers": [*kept, (b"content-length", length)]}
        await self._send_both({**start, "headers": [*start["headers"], *headers_of(outcome)]}, message)


def _ungateable(asked: Asked) -> str | None:
    """Return why a request cannot be gated, or None."""
    given = {name for name, value in asked.body.items() if value is not None and value is not False}
    for field, reason in _PAST_THE_GATE.items():
        if field in given:
            return f"{field} {reason}: leave it out"
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
