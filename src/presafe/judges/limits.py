"""What a judge's server may send: a short reply, not compressed. Its time is limited by Inspect's `attempt_timeout`.

Inspect's providers read a body whole, and unpack it. Those whose client is of httpx's kind (OpenAI's, Anthropic's, and
all that speak their language) are given hooks that refuse a compressed body and stop reading a long one. The request
then fails as one whose connection was cut.
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
    """Return the model, whose provider reads no compressed and no long reply."""
    api = model.api
    generate = api.generate

    async def limited(*words: Any, **settings: Any) -> Any:
        _hook(api)  # at each request: Inspect makes another client where one was closed
        return await generate(*words, **settings)

    api.generate = limited  # type: ignore[method-assign]
    return model


def _hook(api: Any) -> None:
    hooks = getattr(getattr(getattr(api, "client", None), "_client", None), "event_hooks", None)
    if isinstance(hooks, dict) and _shorten not in hooks["response"]:
        hooks["request"].append(_ask_plain)
        hooks["response"].append(_shorten)


async def _ask_plain(request: Any) -> None:
    request.headers["Accept-Encoding"] = "identity"


async def _shorten(response: Any) -> None:
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
        raise ReplyError("the reply is compressed, though it was asked not to be")
    read = response.aiter_bytes

    async def limited(*words: Any, **settings: Any) -> AsyncIterator[bytes]:
        num_bytes = 0
        async for part in read(*words, **settings):
            num_bytes += len(part)
            if num_bytes > _MAX_BYTES:
                raise ReplyError(f"the reply is longer than {_MAX_BYTES:,} bytes")
            yield part

    response.aiter_bytes = limited
