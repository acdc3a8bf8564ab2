"""Read a server's answers strictly: a malformed answer is requested again and never counted."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx

from presafe.models.exchange import Completion
from presafe.models.http import Refused, TryAgain, read_json, shown, without_secret

_STOPPED = frozenset({"stop", "eos", "eos_token", "stop_sequence"})
_CUT = frozenset({"length", "max_tokens"})
_SLACK = 8
"""Tokens that a server may count beyond the budget, such as the end of the turn. Ours."""
_MAX_COUNT = 2**31
"""No prompt, answer or context has as many tokens. Ours."""
_MAX_NAMES = 20
"""Largest number of offered names that are shown."""
_MALFORMED = "its answer is no completion"


THOUGHT_FIELDS = ("reasoning", "reasoning_content")
"""Fields of a chat message that hold the thought: vLLM from 0.11 and others; vLLM before, SGLang and llama.cpp."""


class Reply(NamedTuple):
    """What a chat endpoint returned."""

    content: str
    thought: str | None
    """The thought; None if it has no field of its own, or the field is null."""
    num_tokens: int
    stopped: bool


class Offer(NamedTuple):
    """A model that a server offers."""

    name: str
    context: int | None
    """Largest number of tokens of prompt and answer together; None if the server does not state it."""


def read_offers(response: httpx.Response) -> list[Offer]:
    """Return the models in an answer of `/v1/models`; an empty list if it lists none.

    vLLM states no context for an adapter, so it gets the context of its base.

    Args:
        response: The server's answer.
    """
    try:
        body = read_json(response)
    except ValueError:
        return []
    models = body.get("data") if isinstance(body, dict) else None
    named = [
        model for model in (models if isinstance(models, list) else []) if isinstance(model, dict) and _name(model)
    ]
    contexts = {_name(model): _count(model.get("max_model_len")) for model in named}
    bases = {_name(model): model.get("parent") for model in named}
    return [
        Offer(name, context or (contexts.get(base) if isinstance(base := bases[name], str) else None) or None)
        for name, context in contexts.items()
    ]


def listed(names: list[str]) -> str:
    """Return the first of a server's names, as they are shown to the user.

    Args:
        names: What it calls its models.
    """
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(map(shown, names[:_MAX_NAMES])) + more


def completion_of(response: httpx.Response, max_tokens: int | None = None) -> Completion:
    """Return what a model wrote, how many tokens it has, and whether the model ended it.

    Args:
        response: The server's answer, of status 200.
        max_tokens: Token budget of the request; None if it is not known.

    Raises:
        TryAgain: it is not a completion, its end is not known, or its number of tokens is impossible.
        Refused: the server filtered what the model wrote, or does not count its tokens.
    """
    try:
        body = read_json(response)
        choice = body["choices"][0]
        text, reason = choice["text"], choice["finish_reason"]
        text.encode()
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise TryAgain(_MALFORMED) from error
    if not isinstance(text, str):
        raise TryAgain(_MALFORMED)
    num_tokens, stopped = _ended(body, reason, max_tokens)
    return Completion(without_secret(text), num_tokens, stopped, _sampled(choice, num_tokens))


def _sampled(choice: dict[str, Any], num_tokens: int) -> tuple[int, ...]:
    """Return the sampled tokens, if the server returns them.

    Raises:
        TryAgain: they are no token ids, or not as many as it counts.
    """
    ids = choice.get("token_ids")
    if ids is None:
        return ()
    if not isinstance(ids, list) or len(ids) != num_tokens or any(_count(i) is None for i in ids):
        raise TryAgain("the tokens that it returns are not those that it counts")
    return tuple(ids)


def reply_of(response: httpx.Response, max_tokens: int) -> Reply:
    """Return the message of a chat endpoint: its content, and the thought if it has a field of its own.

    Args:
        response: The server's answer, of status 200.
        max_tokens: Token budget of the request.

    Raises:
        TryAgain: it is no chat completion, a field is no text, both thought fields are there and differ, its end is not
            known, or its number of tokens is impossible.
        Refused: the server filtered what the model wrote, does not count its tokens, or returns a tool call.
    """
    try:
        body = read_json(response)
        choice = body["choices"][0]
        message, reason = choice["message"], choice["finish_reason"]
        content = _text_or_none(message["content"])
        thoughts = [thought for name in THOUGHT_FIELDS if (thought := _text_or_none(message.get(name))) is not None]
        role, calls = message.get("role", "assistant"), message.get("tool_calls")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise TryAgain(_MALFORMED) from error
    if role != "assistant":
        raise TryAgain(f"its answer is of the role {_shown(role)}")
    if calls:
        raise Refused("it returns a tool call, and no tool was offered", of_prompt=True)
    if len(set(thoughts)) > 1:
        raise TryAgain(f"its answer holds two thoughts that differ ({' and '.join(THOUGHT_FIELDS)})")
    num_tokens, stopped = _ended(body, reason, max_tokens)
    thought = without_secret(thoughts[0]) if thoughts else None
    return Reply(without_secret(content or ""), thought, num_tokens, stopped)


def num_read(response: httpx.Response) -> int | None:
    """Return the number of tokens that a server counted in a prompt; None if it does not state it.

    Args:
        response: The server's answer, of status 200.

    Raises:
        TryAgain: it is not a number of tokens.
    """
    try:
        usage = read_json(response)["usage"]
        value = usage.get("prompt_tokens")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TryAgain(_MALFORMED) from error
    count = _count(value)
    if value is not None and count is None:
        raise TryAgain(f"it counts {_shown(value)} tokens in the prompt")
    return count or None  # no prompt has 0 tokens: some servers do not count what is in their cache


def _ended(body: Any, reason: Any, max_tokens: int | None) -> tuple[int, bool]:
    """Return the number of tokens that a model wrote, and whether it ended by itself; see `completion_of`.

    Args:
        body: The server's answer.
        reason: Its `finish_reason`.
        max_tokens: Token budget of the request; None if it is not known.
    """
    if reason == "content_filter":
        raise Refused("it filtered the answer (finish_reason content_filter)", of_prompt=True)
    num_tokens = _num_written(body, max_tokens)
    if reason is None and max_tokens is not None:
        return num_tokens, num_tokens < max_tokens
    if isinstance(reason, str) and reason in _STOPPED | _CUT:
        return num_tokens, reason in _STOPPED
    raise TryAgain(f"its answer ended for an unknown reason (finish_reason {_shown(reason)})")


def _num_written(body: Any, max_tokens: int | None) -> int:
    """Return the number of tokens that a server counted in its answer; the arguments are as `completion_of`'s."""
    usage = body.get("usage")
    value = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if value is None:
        raise Refused("it does not state how many tokens it wrote (usage.completion_tokens)")
    count = _count(value)
    if count is None or (max_tokens is not None and count > max_tokens + _SLACK):
        budget = f", at most {max_tokens} were requested" if max_tokens is not None else ""
        raise TryAgain(f"it counts {_shown(value)} tokens in its answer{budget}")
    return count


def _text_or_none(value: Any) -> str | None:
    """Return a field's text, or None if it is null.

    Raises:
        TypeError: it is of another kind.
        ValueError: it holds half a surrogate pair.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"a text, got a {type(value).__name__}")
    value.encode()
    return value


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _MAX_COUNT else None


def _shown(value: Any) -> str:
    return shown(str(value)) if value is None or isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _name(model: dict[str, Any]) -> str:
    name = model.get("id")
    return name if isinstance(name, str) else ""
