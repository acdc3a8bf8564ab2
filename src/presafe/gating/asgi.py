"""Read the body of a request, and send a whole response, as ASGI words them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .exchange import CHAT, COMPLETIONS, Asked, error_body, refusal_body
from .outcome import Outcome, headers_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

ASKED = {("POST", COMPLETIONS), ("POST", CHAT)}
"""Routes that ask for an answer."""
MAX_BODY = 2**24
"""Largest body of a request in bytes; a prompt of a million tokens has about 4 MB."""
_KINDS = {404: "NotFoundError", 502: "BadGatewayError", 503: "unread", 504: "GatewayTimeoutError"}
"""Types of errors by status; all others are errors of the request."""


async def read_body(receive: Receive) -> bytes | None:
    """Return the body of a request; None if it is too large.

    Args:
        receive: Receives from the client.
    """
    content = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(content)
        content += message.get("body", b"")
        if len(content) > MAX_BODY:
            return None
        if not message.get("more_body"):
            return bytes(content)


async def send_error(send: Send, status: int, problem: str, headers: Headers | None = None) -> None:
    """Send an error.

    Args:
        send: Sends to the client.
        status: Status code.
        problem: What is wrong.
        headers: More headers.
    """
    content = error_body(problem, _KINDS.get(status, "invalid_request_error"), status)
    await send_whole(send, status, content, b"application/json", headers or [])


async def send_replacement(send: Send, asked: Asked, outcome: Outcome, refusal: str, field: dict[str, Any]) -> None:
    """Send what takes the place of a model's answer: a refusal, or 503 where no decision was read.

    Args:
        send: Sends to the client.
        asked: The request.
        outcome: What was decided.
        refusal: Text of the refusal.
        field: Value of the field `presafe`.
    """
    if outcome.action == "unavailable":
        await send_error(send, 503, "no decision was read", headers_of(outcome))
        return
    kind, content = refusal_body(asked, refusal, field)
    await send_whole(send, 200, content, kind, headers_of(outcome))


async def send_whole(send: Send, status: int, content: bytes, kind: bytes, headers: Headers) -> None:
    """Send a whole response.

    Args:
        send: Sends to the client.
        status: Status code.
        content: Its body.
        kind: Type of the body.
        headers: More headers.
    """
    own = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": content, "more_body": False})
