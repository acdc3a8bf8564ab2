"""Keep API keys out of logs: Inspect logs what providers raise or return, and a server may repeat the key."""

from __future__ import annotations

import json
from typing import Any

from inspect_ai.model import Model, ModelOutput

from presafe.models.http import SECRET

_HIDDEN = "[key]"


def hide_key(model: Model) -> Model:
    """Hide a model's API key in everything that its provider raises or returns, and return the model.

    A dummy key, which may be a common word, is hidden in errors only.
    """
    api, key = model.api, model.api.api_key
    if not key:
        return model
    generate = api.generate

    async def generate_redacted(*args: Any, **settings: Any) -> Any:
        try:
            result = await generate(*args, **settings)
        except Exception as error:
            _redact_error(error, key)
            raise
        output, call = result if isinstance(result, tuple) else (result, None)
        is_error = call is not None and bool(call.error)  # a bad request, which Inspect takes for an answer
        if not is_error and len(key) < SECRET:
            return result
        if call is not None:
            call.response = _redact(key, call.response)
        if isinstance(output, Exception):
            _redact_error(output, key)
        elif key in (text := output.model_dump_json()):
            output = ModelOutput.model_validate_json(text.replace(key, _HIDDEN))
        return output if call is None else (output, call)

    api.generate = generate_redacted  # type: ignore[method-assign]
    return model


def _redact_error(error: Exception, key: str) -> None:
    """Hide the key in an error's message and in the server's reply that it carries."""
    error.args = _redact(key, error.args)
    for name in ("message", "body"):
        if hasattr(error, name):
            setattr(error, name, _redact(key, getattr(error, name)))


def _redact(key: str, value: Any) -> Any:
    """Return a copy of a text, list, tuple or table without the key; another value that holds it becomes a text."""
    if isinstance(value, str):
        return value.replace(key, _HIDDEN)
    if isinstance(value, tuple):
        return tuple(_redact(key, item) for item in value)
    if key not in str(value):
        return value
    return json.loads(json.dumps(value, default=str).replace(key, _HIDDEN))
