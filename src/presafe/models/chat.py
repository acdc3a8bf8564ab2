"""Ask a chat endpoint (`/v1/chat/completions`), for servers that take no raw prompt.

The server renders the messages itself, and a server with a reasoning parser returns the thought in a field of its own
(`answers.THOUGHT_FIELDS`). What is lost, compared with a raw prompt:

prefills      a mode that a family asks for by a prefill cannot be asked, nor a method that prefills the thought
the prompt    it is the server's. Checked is the number of its tokens, against the tokenizer's own template, so that a
              server that ignores the template's variables is found; and that no control token is in a user's words
the tokens    thought and answer are texts, without the white space around them
"""

from __future__ import annotations

from typing import Any

import httpx

from presafe.errors import ModelError
from presafe.models.answers import THOUGHT_FIELDS, reply_of
from presafe.models.exchange import Completion, Request
from presafe.models.family import Family
from presafe.models.http import Refused
from presafe.models.rendering import Answer, Renderer, asked
from presafe.records import Thinking

_EFFORT = "reasoning_effort"
"""Template variable that is also a setting of OpenAI's API; some servers read it only there."""
_DATE_TOKENS = 4
"""Tokens by which a prompt may differ that names today's date: ours names 1 January 2026. Ours."""


class UnaskableError(ModelError):
    """A server of this kind cannot be asked exactly this."""


def askable_modes(family: Family) -> tuple[Thinking, ...]:
    """Return the modes of a family that need no prefill.

    Args:
        family: The family.

    Raises:
        UnaskableError: there is none.
    """
    modes = tuple(mode for mode in family.modes if not _prefill(family, mode))
    if not modes:
        raise UnaskableError(f"family {family.name} asks for each mode by a prefill, and a chat endpoint takes none.")
    return modes


def chat_body(request: Request, renderer: Renderer) -> dict[str, Any]:
    """Return the messages of a request, and the variables of the template.

    Args:
        request: The prompt and how it is continued.
        renderer: The model's tokenizer and family.

    Raises:
        UnaskableError: the mode needs a prefill, or as `rendered_ids`.
    """
    family, thinking = renderer.family, request.thinking
    renderer.need_mode(thinking)
    if prefill := _prefill(family, thinking):
        raise UnaskableError(
            f"family {family.name} asks for CoT {thinking} by the prefill {prefill!r}, and a chat endpoint takes none.",
            "Give the address without /chat/completions, of a server that takes raw prompts.",
        )
    rendered_ids(request, renderer)
    variables = family.modes[thinking].variables
    body: dict[str, Any] = {"messages": asked(family.modes[thinking], request.text)}
    if variables:
        body["chat_template_kwargs"] = variables
    if _EFFORT in variables:
        body[_EFFORT] = variables[_EFFORT]
    return body


def rendered_ids(request: Request, renderer: Renderer) -> list[int]:
    """Return the token ids that the tokenizer's template makes of a request, as the server must.

    Args:
        request: The prompt and how it is continued.
        renderer: The model's tokenizer and family.

    Raises:
        UnaskableError: the template changes the user's text, or the server would obey control tokens in it.
    """
    mode = renderer.family.modes[request.thinking]
    rendered = renderer.templated(asked(mode, request.text), add_generation_prompt=True, **mode.variables)
    ids = renderer.completion_ids(rendered)
    control = set(renderer.tokenizer.added_tokens_decoder)
    if [i for i in ids if i in control] != [i for i in request.ids if i in control]:
        raise UnaskableError(
            "a prompt spells control tokens, and this server renders the prompt itself: it would obey them.",
            "Serve the model with vLLM, which takes token ids, or leave the prompt out.",
        )
    if request.text.strip() not in rendered:
        raise UnaskableError(
            "the chat template changes the text of a prompt.",
            "Serve the model with vLLM, which takes token ids, or leave the prompt out.",
        )
    return ids


def date_tokens(renderer: Renderer) -> int:
    """Return by how many tokens the server's prompt may differ from ours because the template writes the date.

    Args:
        renderer: The model's tokenizer and family.
    """
    return _DATE_TOKENS if "strftime_now" in str(renderer.tokenizer.chat_template) else 0


def chat_completion(response: httpx.Response, request: Request, renderer: Renderer) -> Completion:
    """Return what a chat endpoint answered, split into thought and answer.

    A server that has no reasoning parser leaves the thought in the content; then its marks tell the two apart. A
    thought field that is null says nothing: servers with and without a parser send it.

    Args:
        response: The server's answer, of status 200.
        request: The prompt and how it was continued.
        renderer: The model's tokenizer and family.

    Raises:
        TryAgain: as `reply_of`.
        Refused: as `reply_of`; field and content hold thoughts that differ; or it cannot be told whether the content
            holds a thought, because the marks are special tokens, which the server leaves out.
    """
    reply = reply_of(response, request.max_tokens)
    family, content = renderer.family, reply.content.strip()
    marked = renderer.split_text(reply.content, request.thinking, ended=reply.stopped)
    opening = family.think_open.strip()
    thought = (reply.thought or "").strip()
    if thought and content.startswith(opening):  # llama.cpp can return the thought in both places
        if marked.thought != thought:
            raise Refused("the thought in its field is not the one in the content", of_prompt=True)
        answer = marked
    elif thought or (reply.thought == "" and reply.stopped):  # a text, be it empty, shows that a parser is there
        answer = Answer(thought, content.removeprefix(family.answer_open).strip(), not reply.stopped and not content)
    elif reply.thought is None and request.thinking != "off" and content and hides_marks(renderer):
        raise Refused(
            f"it returns no thought in a field ({' or '.join(THOUGHT_FIELDS)}), and leaves out the tokens that mark "
            "one: start it with its reasoning parser",
            of_prompt=True,
        )
    else:
        answer = marked
    return Completion(reply.content, reply.num_tokens, reply.stopped, answer=answer)


def hides_marks(renderer: Renderer) -> bool:
    """Return whether a think mark is made of special tokens, which many servers leave out of texts.

    Args:
        renderer: The model's tokenizer and family.
    """
    special = {index for index, token in renderer.tokenizer.added_tokens_decoder.items() if token.special}
    marks = renderer.completion_ids(renderer.family.think_open) + renderer.completion_ids(renderer.family.think_close)
    return not special.isdisjoint(marks)


def _prefill(family: Family, thinking: Thinking) -> str:
    return family.off_prefill if thinking == "off" else family.on_prefill
