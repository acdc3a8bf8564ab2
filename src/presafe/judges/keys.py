"""A server that repeats the key must not thereby write it into a log: Inspect logs what providers raise or return."""

from __future__ import annotations

import json
from typing import Any

from inspect_ai.model import Model, ModelOutput

from presafe.models.http import SECRET

_HIDDEN = "[key]"


def hide_key(model: Model) -> Model:
    """Return the model, its API key hidden in whatever its provider raises or gives back.

    A dummy key, which may be a common word, is hidden in errors only.
    """
    api, key = model.api, model.api.api_key
    if not key:
        return model
    generate = api.generate

    async def hushed(*words: Any, **settings: Any) -> Any:
        try:
            result = await generate(*words, **settings)
        except Exception as error:
            _scrub(error, key)
            raise
        output, call = result if isinstance(result, tuple) else (result, None)
        is_error = call is not None and bool(call.error)  # a bad request, which Inspect takes for an answer
        if not is_error and len(key) < SECRET:
            return result
        if call is not None:
            call.response = _without(key, call.response)
        if isinstance(output, Exception):
            _scrub(output, key)
        elif key in (text := output.model_dump_json()):
            output = ModelOutput.model_validate_json(text.replace(key, _HIDDEN))
        return output if call is None else (output, call)

    api.generate = hushed  # type: ignore[method-assign]
    return model


def _scrub(error: Exception, key: str) -> None:
    """Hide the key in an error's words and in the server's reply that it carries."""
    error.args = _without(key, error.args)
    for name in ("message", "body"):
        if hasattr(error, name):
            setattr(error, name, _without(key, getattr(error, name)))


def _without(key: str, value: Any) -> Any:
    """The same text, list, tuple or table without the key; anything else that holds it as a text."""
    if isinstance(value, str):
        return value.replace(key, _HIDDEN)
    if isinstance(value, tuple):
        return tuple(_without(key, each) for each in value)
    if key not in str(value):
        return value
    return json.loads(json.dumps(value, default=str).replace(key, _HIDDEN))
