"""Ask a kind of server with a raw prompt: as token ids, or as text with one of three sets of settings.

Token ids are tried first: all guarantees of `rendering` are about them. A server that takes text tokenizes it itself.
What it will read is computed with the model's own tokenizer, and a prompt in which it would read a user's words as
control tokens is not sent. OpenAI's settings (max_tokens, seed, temperature, top_p, stop) are sent to every server,
because a server that ignores unknown fields would not see them elsewhere. A chat endpoint gets messages (`chat`), and
only if the address is its own.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from presafe.models.chat import UnaskableError, chat_body, hides_marks, rendered_ids
from presafe.models.exchange import Request
from presafe.models.rendering import Renderer

_MAX_STOPS = 4
"""Number of stop strings that OpenAI's completions accept."""


class Dialect(StrEnum):
    """How a server is asked, in the order in which the dialects are tried."""

    IDS = "token ids"
    """vLLM, SGLang, llama.cpp."""
    TRANSFORMERS = "text, transformers' settings"
    """`transformers serve`."""
    LENIENT = "text, and ignores settings that it does not know"
    """For example Ollama, which accepts transformers' settings without reading them."""
    OPENAI = "text, OpenAI's settings"
    """Any other server of completions."""
    CHAT = "messages: the server renders the prompt and may split the thought from the answer"
    """A chat endpoint."""


def request_body(dialect: Dialect, name: str, request: Request, renderer: Renderer) -> dict[str, Any]:
    """Return the JSON body of a request to `/v1/completions`, or to a chat endpoint.

    Each setting is sent, even if it has the usual default: servers take missing settings from the model's own
    generation config.

    Args:
        dialect: How the server is asked.
        name: What the server calls the model.
        request: The prompt and how it is continued.
        renderer: The model's tokenizer and family.

    Raises:
        UnaskableError: as `as_text` or `chat_body`; or top-k in OpenAI's dialect.
    """
    sampling = request.sampling
    seed = request.seed % 2**31  # the range that every server takes
    body: dict[str, Any] = {
        "model": name,
        "max_tokens": request.max_tokens,
        "seed": seed,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if dialect in (Dialect.IDS, Dialect.CHAT):
        body |= {
            "top_k": sampling.top_k or -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop_token_ids": renderer.stop_ids(),
        }
    if dialect is Dialect.CHAT:
        return body | chat_body(request, renderer)
    if dialect is Dialect.IDS:
        return body | {
            "prompt": request.ids,
            "skip_special_tokens": False,  # think marks are special tokens in some families
            "spaces_between_special_tokens": False,
        }
    body |= {"prompt": as_text(renderer, request.ids), "stop": list(renderer.family.stop[:_MAX_STOPS])}
    if dialect is Dialect.TRANSFORMERS:
        draws = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        config: dict[str, Any] = {"do_sample": True, **draws} if sampling.temperature else {"do_sample": False}
        config |= {"eos_token_id": renderer.stop_ids(), "pad_token_id": renderer.tokenizer.pad_token_id}
        return body | {"generation_config": json.dumps(config)}
    if dialect is Dialect.LENIENT:  # the penalty by each of its usual names
        return body | {"top_k": sampling.top_k, "min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0}
    if sampling.top_k:
        raise UnaskableError(
            f"family {renderer.family.name} samples with top-k {sampling.top_k}, which this server does not take.",
            "Serve the model with vLLM.",
        )
    return body


def with_broken_settings(name: str, request: Request, renderer: Renderer) -> dict[str, Any]:
    """Return a request that `transformers serve` refuses, and that a server that ignores unknown fields accepts.

    Args:
        name: What the server calls the model.
        request: The prompt and how it is continued.
        renderer: The model's tokenizer and family.

    Raises:
        UnaskableError: as `as_text`.
    """
    return request_body(Dialect.LENIENT, name, request, renderer) | {"generation_config": "[]"}


def num_sent(body: dict[str, Any], request: Request, renderer: Renderer) -> int:
    """Return the number of tokens that a server must count in a request's prompt.

    Args:
        body: Body of the request (`request_body`).
        request: The prompt and how it is continued.
        renderer: The model's tokenizer and family.
    """
    if "messages" in body:
        return len(rendered_ids(request, renderer))
    prompt = body["prompt"]
    return len(prompt if isinstance(prompt, list) else renderer.tokenizer.encode(prompt))


def as_text(renderer: Renderer, ids: list[int]) -> str:
    """Return a text that a server turns into these ids, or into ids that differ only in how plain text is split.

    Servers put the tokenizer's beginning-of-text token before a text, so it is left out if the ids start with it.

    Args:
        renderer: The model's tokenizer and family.
        ids: Token ids of the prompt.

    Raises:
        UnaskableError: the server would read control tokens that are not there, because the user's text spells one; or
            the family's think marks are special tokens, which such servers leave out of the answer.
    """
    tokenizer = renderer.tokenizer
    if hides_marks(renderer):
        raise UnaskableError(
            f"this server leaves special tokens out of its answers, and {renderer.family.think_close} is one.",
            "Serve the model with vLLM, which takes token ids.",
        )
    control = set(tokenizer.added_tokens_decoder)
    text: str = tokenizer.decode(ids)
    candidates = (text, text.removeprefix(tokenizer.bos_token or ""))
    read = {candidate: tokenizer.encode(candidate) for candidate in candidates}
    for candidate, token_ids in read.items():
        if token_ids == ids:
            return candidate
    for candidate, token_ids in read.items():
        if [i for i in token_ids if i in control] == [i for i in ids if i in control]:
            return candidate
    raise UnaskableError(
        "a prompt spells control tokens, and this server takes text, in which it would obey them.",
        "Serve the model with vLLM, which takes token ids, or leave the prompt out.",
    )


def is_exact(renderer: Renderer, ids: list[int]) -> bool:
    """Return whether a server that takes text reads exactly these ids.

    Args:
        renderer: The model's tokenizer and family.
        ids: Token ids of the prompt.

    Raises:
        UnaskableError: as `as_text`.
    """
    token_ids: list[int] = renderer.tokenizer.encode(as_text(renderer, ids))
    return token_ids == ids
