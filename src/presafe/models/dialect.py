"""How one kind of server takes a raw prompt: as token ids, or as text with one of three sets of settings.

Token ids are what every guarantee of `rendering` is about, so they are tried first. A server that takes text tokenises
it itself: what it will see is worked out with the model's own tokenizer, and a prompt in which it would read a user's
words as control tokens is not sent. OpenAI's settings (max_tokens, seed, temperature, top_p, stop) are sent to every
server, because one that ignores unknown fields would not see them elsewhere.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from presafe.errors import ModelError
from presafe.models.exchange import Request
from presafe.models.rendering import Renderer

_MAX_STOPS = 4
"""Stop strings that OpenAI's completions take."""


class UnaskableError(ModelError):
    """A server of this kind cannot be asked this exactly."""


class Dialect(StrEnum):
    """How a server is asked; in the order in which they are tried."""

    IDS = "token ids"
    """vLLM, SGLang, llama.cpp."""
    TRANSFORMERS = "text, transformers' settings"
    """`transformers serve`."""
    LENIENT = "text, and ignores settings that it does not know"
    """Ollama, for example: it accepts transformers' settings, whatever they are."""
    OPENAI = "text, OpenAI's settings"
    """Any other server of completions."""


def request_body(dialect: Dialect, name: str, request: Request, renderer: Renderer) -> dict[str, Any]:
    """The JSON body of a request to `/v1/completions`.

    Every setting is sent, also where it is the usual default: servers take what is missing from the model's own
    generation config.

    Args:
        dialect: How the server is asked.
        name: What the server calls the model.
        request: The prompt and how it is continued.
        renderer: The model's tokenizer and family.

    Raises:
        UnaskableError: as `as_text`, and top-k in OpenAI's dialect.
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
    if dialect is Dialect.IDS:
        return body | {
            "prompt": request.ids,
            "top_k": sampling.top_k or -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop_token_ids": renderer.stop_ids(),
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
    """Return a request that `transformers serve` refuses and a server that ignores unknown fields accepts.

    Args:
        name: What the server calls the model.
        request: The prompt and how it is continued.
        renderer: The model's tokenizer and family.

    Raises:
        UnaskableError: as `as_text`.
    """
    return request_body(Dialect.LENIENT, name, request, renderer) | {"generation_config": "[]"}


def num_sent(body: dict[str, Any], renderer: Renderer) -> int:
    """Return the number of tokens that a server must read a request's prompt as."""
    prompt = body["prompt"]
    return len(prompt if isinstance(prompt, list) else renderer.tokenizer.encode(prompt))


def as_text(renderer: Renderer, ids: list[int]) -> str:
    """The text that a server turns into these ids, or into ids that differ in how plain text is cut only.

    Servers put the tokenizer's own beginning-of-text token before a text, so one that the ids begin with is left out.

    Raises:
        UnaskableError: the server would read control tokens that are not there, because the user's text spells one; or
            the family's think marks are special tokens, which such servers leave out of what the model wrote.
    """
    tokenizer = renderer.tokenizer
    control = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    marks = renderer.completion_ids(renderer.family.think_close)
    if not control.isdisjoint(marks):
        raise UnaskableError(
            f"this server takes text and leaves special tokens out of it, but {renderer.family.think_close} is one.",
            "Serve the model with vLLM, which takes token ids.",
        )
    control |= set(tokenizer.added_tokens_decoder)
    text: str = tokenizer.decode(ids)
    seen = [(each, tokenizer.encode(each)) for each in (text, text.removeprefix(tokenizer.bos_token or ""))]
    for each, found in seen:
        if found == ids:
            return each
    for each, found in seen:
        if [i for i in found if i in control] == [i for i in ids if i in control]:
            return each
    raise UnaskableError(
        "a prompt spells control tokens, and this server takes text, in which it would obey them.",
        "Serve the model with vLLM, which takes token ids, or leave the prompt out.",
    )


def is_exact(renderer: Renderer, ids: list[int]) -> bool:
    """Whether a server that takes text sees exactly these ids.

    Raises:
        UnaskableError: as `as_text`.
    """
    found: list[int] = renderer.tokenizer.encode(as_text(renderer, ids))
    return found == ids
