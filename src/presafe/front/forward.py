"""Send a request on to the server, and its answer back to the client.

A stream is sent on byte by byte: the next piece is read when the client has taken the last one. A JSON answer gets the
field `presafe`, for which it is read whole. Errors of the server are sent on as they are. A redirect is not: it would
lead the client past the gate.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any

import httpx

from presafe.gating.asgi import Headers, Message, Send, send_error, send_whole
from presafe.gating.exchange import Asked, with_field
from presafe.models.address import Served
from presafe.models.control import client_of
from presafe.models.http import Patience, api_key, fetch

_IN_FLIGHT = 1024
"""Requests at once at the server, which has limits of its own. Ours."""
_MAX_WHOLE = 2**26
"""Largest JSON answer in bytes. Ours."""
_SECONDS, _BYTES = 10.0, 2**22
"""Limits of a question about the server itself. Ours."""
_SENT_ON = (b"authorization", b"x-request-id", b"traceparent", b"tracestate")
"""Headers of a request that the server gets."""
_KEPT_BACK = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    *(b"date", b"server"),
}
"""Headers of an answer that belong to one connection, and those that this server writes itself."""

Settle = Callable[[], tuple[Headers, dict[str, Any]]]
"""Writes the decision down, and returns the headers and the field that the client gets."""


class Upstream:
    """The server that answers.

    Args:
        served: The server, and its name for the model.
    """

    def __init__(self, served: Served) -> None:
        self.served, self.seconds = served, Patience.from_environment().timeout_s
        self._client, self._has_key = client_of(served, _IN_FLIGHT), api_key() is not None

    def ask(self, asked: Asked, headers: Headers) -> AbstractAsyncContextManager[httpx.Response]:
        """Send a request, and give its answer as a stream.

        The body is written anew: what one reader of JSON takes for the prompt, another one must, too.

        Args:
            asked: The request.
            headers: The client's headers.
        """
        kept = [(key, value) for key, value in headers if key in _SENT_ON]
        if self._has_key:  # the operator's key, not the client's
            kept = [(key, value) for key, value in kept if key != b"authorization"]
        kept.append((b"content-type", b"application/json"))
        return self._client.stream("POST", asked.path, content=json.dumps(asked.body).encode(), headers=kept)

    async def models(self) -> httpx.Response:
        """Return what the server lists.

        Raises:
            TryAgain: no answer.
            Refused: an answer that is too long.
        """
        return await fetch(self._client, "v1/models", seconds=min(_SECONDS, self.seconds), max_bytes=_BYTES)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


class _Started:
    """Sends to the client, and knows whether the response has begun."""

    def __init__(self, send: Send) -> None:
        self._send, self.is_begun = send, False

    async def __call__(self, message: Message) -> None:
        self.is_begun = True
        await self._send(message)


async def forward(upstream: Upstream, asked: Asked, headers: Headers, settle: Settle, send: Send) -> None:
    """Send a request on, and its answer back.

    Args:
        upstream: The server.
        asked: The request.
        headers: The client's headers.
        settle: Called when the answer begins.
        send: Sends to the client. If the server fails after the answer has begun, its end is never sent, so that the
            connection is closed and the client sees that it was cut.
    """
    client = _Started(send)
    try:
        async with asyncio.timeout(upstream.seconds), upstream.ask(asked, headers) as response:
            await _send_back(response, asked, settle, client)
    except (TimeoutError, httpx.TransportError) as error:
        if not client.is_begun:
            is_late = isinstance(error, TimeoutError | httpx.TimeoutException)
            problem = "did not answer in time" if is_late else "cannot be reached, or cut the connection"
            await send_error(client, 504 if is_late else 502, f"the server of the model {problem}")


async def _send_back(response: httpx.Response, asked: Asked, settle: Settle, send: Send) -> None:
    """Send an answer to the client."""
    status = response.status_code
    if status != HTTPStatus.OK:
        if status < 400 or status not in set(HTTPStatus):
            await send_error(send, 502, f"the server of the model answers with status {status}")
        else:
            await _send_stream(response, _headers_of(response), send)
        return
    kind = response.headers.get("content-type", "")
    if asked.is_streamed or not kind.startswith("application/json"):
        own, _ = settle()
        await _send_stream(response, [*_headers_of(response), *own], send)
        return
    content = bytearray()
    async for part in response.aiter_raw():
        content += part
        if len(content) > _MAX_WHOLE:
            await send_error(send, 502, f"the server's answer has more than {_MAX_WHOLE} bytes")
            return
    try:
        with_field(bytes(content), {})
    except (ValueError, TypeError, RecursionError):
        await send_error(send, 502, "the server's answer is no JSON object")
        return
    own, field = settle()
    hidden = {b"content-length", b"content-type"}
    kept = [(key, value) for key, value in _headers_of(response) if key not in hidden]
    await send_whole(send, status, with_field(bytes(content), field), kind.encode("latin-1"), [*kept, *own])


async def _send_stream(response: httpx.Response, headers: Headers, send: Send) -> None:
    """Send an answer piece by piece, as it comes."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    async for part in response.aiter_raw():
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _headers_of(response: httpx.Response) -> Headers:
    """Return the headers of an answer that the client gets."""
    named = [(key.lower(), value) for key, value in response.headers.raw]
    return [(key, value) for key, value in named if key not in _KEPT_BACK and not key.startswith(b"x-presafe-")]
