"""A server that quotes the key in an error must not thereby write it into a log: Inspect logs what providers raise."""

from __future__ import annotations

import json
from typing import Any

from inspect_ai.model import Model, ModelOutput

_HIDDEN = "[key]"


def hide_key(model: Model) -> Model:
    """The model, its API key hidden in whatever its provider raises or gives back as an error."""
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
        if isinstance(result, tuple) and result[1].error:  # a bad request, which Inspect takes for an answer
            output, call = result
            call.response = _without(key, call.response)
            if isinstance(output, Exception):
                _scrub(output, key)
                return output, call
            return ModelOutput.model_validate_json(output.model_dump_json().replace(key, _HIDDEN)), call
        return result

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
