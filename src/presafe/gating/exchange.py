"""Read a request's body, and write the bodies that take the place of a model's answer.

Only the two routes that the gate serves: completions and chat completions of OpenAI's interface.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T", bool, int)
_FLAG, _NUMBER = TypeAdapter(bool), TypeAdapter(int)

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


class Asked(NamedTuple):
    """A request's body, as far as the gate needs it."""

    path: str
    body: dict[str, Any]
    request: str
    """Its id."""

    @property
    def model(self) -> str:
        """Return the name that is asked."""
        return str(self.body["model"])

    @property
    def is_streamed(self) -> bool:
        """Return whether the answer is streamed."""
        return _as(_FLAG, self.body.get("stream"), default=False)

    @property
    def prompts(self) -> list[Any]:
        """Return the distinct prompts: texts, lists of token ids, or one conversation."""
        return list({json.dumps(part): part for part in self._all_prompts}.values())

    @property
    def _all_prompts(self) -> list[Any]:
        """Return the prompts, each as often as it is asked."""
        prompt = self.body.get("prompt") if self.path == COMPLETIONS else self.body.get("messages")
        if self.path == CHAT or not isinstance(prompt, list) or all(isinstance(part, int) for part in prompt):
            return [prompt]
        return prompt

    @property
    def prompt_sha256(self) -> str:
        """Return the sha256 of what was asked, as JSON."""
        return hashlib.sha256(json.dumps(self.prompts, sort_keys=True).encode()).hexdigest()

    @property
    def has_form(self) -> bool:
        """Return whether the answer must have a form, which the tokens of a refusal do not have."""
        form, tool = self.body.get("response_format"), self.body.get("tool_choice")
        is_free = form is None or (isinstance(form, dict) and form.get("type") == "text")
        return self.body.get("structured_outputs") is not None or not is_free or tool not in (None, "none", "auto")

    @property
    def shows_odds(self) -> bool:
        """Return whether the answer has the odds of tokens, which are the model's own also where others are forced."""
        fields = ("logprobs", "top_logprobs", "logprob_token_ids")
        return any(self.body.get(field) is not None and self.body[field] is not False for field in fields)

    @property
    def num_answers(self) -> int:
        """Return how many answers the request asks for."""
        return len(self._all_prompts) * max(1, _as(_NUMBER, self.body.get("n"), default=1))


def _as(kind: TypeAdapter[T], value: Any, *, default: T) -> T:
    """Return a field as the server reads it, "3" as 3, or a default where it is none."""
    try:
        return kind.validate_python(value)
    except ValidationError:
        return default


def with_field(content: bytes, field: dict[str, Any]) -> bytes:
    """Return a JSON object with the field `presafe` added.

    Args:
        content: The object.
        field: Its value.
    """
    return json.dumps({**json.loads(content), "presafe": field}).encode()


def refusal_body(asked: Asked, refusal: str, field: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return content type and body of an answer that refuses in the model's place.

    Args:
        asked: The request.
        refusal: Text of the refusal.
        field: Value of the field `presafe`.
    """
    is_chat = asked.path == CHAT
    kind = ("chat.completion.chunk" if asked.is_streamed else "chat.completion") if is_chat else "text_completion"
    turn = "delta" if asked.is_streamed else "message"
    answer = {turn: {"role": "assistant", "content": refusal}} if is_chat else {"text": refusal}
    choices = [{"index": index, **answer, "finish_reason": "stop"} for index in range(asked.num_answers)]
    whole = {
        "id": asked.request,
        "object": kind,
        "created": int(time.time()),
        "model": asked.model,
        "choices": choices,
        "presafe": field,
    }
    text = json.dumps(whole)
    if asked.is_streamed:
        return b"text/event-stream; charset=utf-8", f"data: {text}\n\ndata: [DONE]\n\n".encode()
    return b"application/json", text.encode()


def error_body(message: str, kind: str, status: int) -> bytes:
    """Return the body of an error, as OpenAI's interface has it.

    Args:
        message: What was wrong.
        kind: Its type.
        status: Status code of the response.
    """
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": status}}).encode()
