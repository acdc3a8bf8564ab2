"""Limit what a judge's server may send: a short reply, not compressed. Inspect's `attempt_timeout` limits its time.

Inspect's providers read a whole body and decompress it. Clients built on httpx (OpenAI's, Anthropic's, and those of
compatible servers) get hooks that refuse a compressed body and stop reading a long one. The request then fails as if
its connection had been cut.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from inspect_ai.model import Model

_MAX_BYTES = 2**21
"""Length of a reply's body: a judge's reply has a few thousand tokens at most. Ours."""


class ReplyError(Exception):
    """A body that is compressed or too long."""


def limit_replies(model: Model) -> Model:
    """Make a model's provider refuse compressed and long replies, and return the model."""
    api = model.api
    generate = api.generate

    async def generate_limited(*args: Any, **settings: Any) -> Any:
        _add_hooks(api)  # at each request: Inspect makes a new client when one was closed
        return await generate(*args, **settings)

    api.generate = generate_limited  # type: ignore[method-assign]
    return model


def _add_hooks(api: Any) -> None:
    hooks = getattr(getattr(getattr(api, "client", None), "_client", None), "event_hooks", None)
    if isinstance(hooks, dict) and _limit_response not in hooks["response"]:
        hooks["request"].append(_ask_uncompressed)
        hooks["response"].append(_limit_response)


async def _ask_uncompressed(request: Any) -> None:
    request.headers["Accept-Encoding"] = "identity"


async def _limit_response(response: Any) -> None:
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
        raise ReplyError("the reply is compressed, although the request asked for an uncompressed one")
    read = response.aiter_bytes

    async def read_limited(*args: Any, **settings: Any) -> AsyncIterator[bytes]:
        num_bytes = 0
        async for chunk in read(*args, **settings):
            num_bytes += len(chunk)
            if num_bytes > _MAX_BYTES:
                raise ReplyError(f"the reply is longer than {_MAX_BYTES:,} bytes")
            yield chunk

    response.aiter_bytes = read_limited
