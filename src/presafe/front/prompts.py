"""Render the prompts of a request as the server does that will answer it.

completions   token ids are what they are; a text is tokenized as the server tokenizes it
chat          one turn of a user, in a form that the family asks in; the server's template writes the rest

Whatever cannot be told for sure is not read: several turns, a field that may change the prompt, a text that spells
control tokens, which the server would obey. Nor is a prompt that does not end at the decision position.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from presafe.errors import ModelError
from presafe.gating.exchange import CHAT, COMPLETIONS, Asked
from presafe.models.rendering import Renderer
from presafe.runtime.reading import is_utf8

Prompt = list[int] | str
"""Token ids of a prompt, or why it is not read."""

_SLOT = "\ue000text\ue000"
"""Stands for the user's text while the template is rendered."""
_MAX_TEXT = 2**22
"""Longest text in letters; about a million tokens. Ours."""
_HARMLESS = {
    *("model", "user", "stream", "stream_options", "n", "best_of", "seed", "stop", "stop_token_ids", "ignore_eos"),
    *("max_tokens", "max_completion_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "logit_bias"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "logprobs", "top_logprobs", "logprob_token_ids"),
    *("skip_special_tokens", "include_stop_str_in_output", "spaces_between_special_tokens"),
    *("return_token_ids", "return_tokens_as_token_ids"),
}
"""Fields of a request that never change its prompt, nor show what the model would write inside it. Others may."""
_OF_ROUTE = {COMPLETIONS: {"prompt"}, CHAT: {"messages", "chat_template_kwargs"}}
"""More fields of each route."""


class Form(NamedTuple):
    """What a template writes around the text of one user."""

    before: str
    after: str
    edges: Literal["kept", "stripped", "changed"]
    """What becomes of white space at the ends of the text."""


class PromptReader:
    """Reads prompts for one server.

    Args:
        renderer: Tokenizer and family of the server's model.
        tail: Ids that every prompt at the decision position ends in.
    """

    def __init__(self, renderer: Renderer, tail: Sequence[int]) -> None:
        self._renderer, self._tail = renderer, list(tail)
        self._control = set(renderer.tokenizer.added_tokens_decoder)
        self._forms = _forms(renderer)

    def read(self, asked: Asked) -> list[Prompt]:
        """Return the distinct prompts of a request that end at the decision position.

        Args:
            asked: The request.
        """
        prompts = self.rendered(asked)
        return [prompt if isinstance(prompt, str) else self._at_decision(prompt) for prompt in prompts]

    def rendered(self, asked: Asked) -> list[Prompt]:
        """Return the distinct prompts of a request, wherever they end.

        Args:
            asked: The request.
        """
        prompts = asked.prompts
        is_raw = asked.path == COMPLETIONS
        given = {name for name, value in asked.body.items() if value is not None}
        if unknown := sorted(given - _HARMLESS - _OF_ROUTE[asked.path]):
            return [f"the field {unknown[0]} may change the prompt or show odds inside it"] * len(prompts)
        return [
            self._raw(prompt) if is_raw else self._chat(prompt, asked.body.get("chat_template_kwargs"))
            for prompt in prompts
        ]

    def _at_decision(self, ids: list[int]) -> Prompt:
        """Return a prompt that ends at the decision position, or that it does not."""
        if ids[-len(self._tail) :] == self._tail:
            return ids
        return "it does not end at the decision position"

    def _raw(self, prompt: Any) -> Prompt:
        """Return the ids of a raw prompt."""
        if isinstance(prompt, list) and all(type(token) is int and token >= 0 for token in prompt):
            return prompt
        if problem := _problem_of_text(prompt):
            return problem
        ids: list[int] = self._renderer.tokenizer.encode(prompt)
        return ids

    def _chat(self, messages: Any, variables: Any) -> Prompt:
        """Return the ids of a conversation, if it is one turn of a user."""
        system, text = _turn_of(messages)
        if problem := _problem_of_text(text):
            return problem
        if not isinstance(variables, dict | None):
            return "chat_template_kwargs is no object"
        form = self._forms.get(_key(system, variables or {}))
        if form is None:
            return "the family does not ask in this way"
        if form.edges == "stripped":
            text = text.strip()
        elif form.edges == "changed" and text != text.strip():
            return "the template changes white space around the text"
        if self._control & set(self._renderer.completion_ids(text)):
            return "the text spells control tokens"
        return self._renderer.completion_ids(form.before + text + form.after)


def _problem_of_text(text: Any) -> str | None:
    """Return why a text cannot be tokenized; None if it can."""
    if not isinstance(text, str):
        return "it is neither token ids nor one text of a user"
    if len(text) > _MAX_TEXT or not is_utf8(text):
        return "the text is too long, or no UTF-8"
    return None


def _turn_of(messages: Any) -> tuple[str | None, Any]:
    """Return the system message, if any, and the text of the only user's turn; None for other conversations."""
    if not isinstance(messages, list) or not 1 <= len(messages) <= 2:
        return None, None
    if any(not isinstance(message, dict) or message.keys() != {"role", "content"} for message in messages):
        return None, None
    if [message["role"] for message in messages] != ["system", "user"][-len(messages) :]:
        return None, None
    system = messages[0]["content"] if len(messages) == 2 else None
    return (None, None) if system is not None and not isinstance(system, str) else (system, messages[-1]["content"])


def _forms(renderer: Renderer) -> dict[str, Form]:
    """Return what the template writes around a user's text: as it is asked without more, and in each mode."""
    modes = renderer.family.modes.values()
    asks = [(None, {}), *((mode.system or None, dict(mode.variables)) for mode in modes)]
    forms = {}
    for system, variables in asks:
        try:
            plain, spaced = (_around(renderer, system, variables, text) for text in (_SLOT, f"\n{_SLOT}\n"))
        except ModelError:  # the template refuses to be asked so, and so does the server's
            continue
        if plain is None or spaced is None:
            continue
        kept = (f"{plain[0]}\n", f"\n{plain[1]}")
        edges: Literal["kept", "stripped", "changed"] = (
            "kept" if spaced == kept else "stripped" if spaced == plain else "changed"
        )
        forms[_key(system, variables)] = Form(*plain, edges)
    return forms


def _around(renderer: Renderer, system: str | None, variables: dict[str, Any], text: str) -> tuple[str, str] | None:
    """Return what the template writes before and after the slot in a text; None if it drops it."""
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": text})
    before, slot, after = renderer.templated(messages, add_generation_prompt=True, **variables).partition(_SLOT)
    return (before, after) if slot else None


def _key(system: str | None, variables: dict[str, Any]) -> str:
    return json.dumps([system, variables], sort_keys=True)
