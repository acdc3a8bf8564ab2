"""Check that a server holds the model that is meant, before it is sampled.

tokenizer    `/tokenize` gives the token ids of this process, for rendered prompts and for a text in several scripts
model        ln P of the most likely first tokens of an answer are those of the weights in this process, or those of
             another server, within a tolerance that covers other types of the weights

    difference = max |ln P_server(t) − ln P_here(t)|     over the server's most likely tokens t, and the modes
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from presafe.errors import ModelError
from presafe.models.address import Served
from presafe.models.control import request_once
from presafe.models.exchange import UnreachableError, greeting_of
from presafe.models.http import message, read_json
from presafe.models.loading import LoadedModel
from presafe.models.output import logits_of
from presafe.models.rendering import Renderer
from presafe.models.served import ServedEngine
from presafe.runtime.progress import console

Chances = Sequence[dict[int, float]]
"""ln P by token id, one table per mode of the family."""
_NUM = 5
"""Most likely tokens that are compared."""
_TOLERANCE = 0.5
"""Largest difference in nats. Ours: the type of the weights changes less than a tenth of it."""
_TEXT = "What is 17 + 25? Ça va, où? Größe 3.5 µm; 今日は\tпривет\n\n  end"
_OTHER = "Serve the recipe's model, with its own tokenizer and without changes."


def need_tokenizer(engine: ServedEngine) -> None:
    """Check that a server's tokenizer is the one of this process.

    Args:
        engine: The server, greeted.

    Raises:
        UnreachableError: no answer.
        ModelError: it gives other token ids.
    """
    renderer, served = engine.ready(), engine.served
    texts = [_TEXT, *(renderer.tokenizer.decode(ids) for ids in _prompts(renderer))]
    for text in texts:
        body = {"model": served.name, "prompt": text, "add_special_tokens": False}
        response = _answered(served, "tokenize", body)
        ids = _tokens(response)
        if ids is None:
            line = f"{served.url} does not show its tokens (/tokenize): whether its tokenizer is ours is not checked."
            console.print(Text(f"  {line}"), soft_wrap=True)
            return
        if ids != renderer.tokenizer.encode(text, add_special_tokens=False):
            raise ModelError(f"{served.url} has another tokenizer than this process.", _OTHER)


def chances_at(engine: ServedEngine) -> Chances:
    """Return ln P of a server's most likely first tokens, by mode.

    Args:
        engine: The server, greeted.

    Raises:
        UnreachableError: no answer.
        ModelError: it does not state them.
    """
    served = engine.served
    settings = {"max_tokens": 1, "temperature": 0, "logprobs": _NUM, "return_tokens_as_token_ids": True}
    tables = []
    for ids in _prompts(engine.ready()):
        response = _answered(served, "v1/completions", {"model": served.name, "prompt": ids, **settings})
        if not response.is_success:
            raise ModelError(f"{served.url} answered {response.status_code}{message(response)}.", _OTHER)
        table = first_chances(response)
        if not table:
            raise ModelError(
                f"{served.url} does not state how likely its tokens are, so that its model cannot be checked.",
                "Serve the model with vLLM.",
            )
        tables.append(table)
    return tables


def first_chances(response: Any) -> dict[int, float]:
    """Return ln P by token id at the first token of a completion; an empty table if it states none.

    Args:
        response: The server's answer, of status 200, with `return_tokens_as_token_ids`.
    """
    try:
        (top, *_) = read_json(response)["choices"][0]["logprobs"]["top_logprobs"]
        table = {int(key.removeprefix("token_id:")): float(value) for key, value in top.items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return {}
    return table if all(value <= 1e-3 for value in table.values()) else {}


def need_same_as_here(engine: ServedEngine, loaded: LoadedModel) -> None:
    """Check that a server's model is the one in this process.

    Args:
        engine: The server, greeted.
        loaded: The model, its adapter merged.

    Raises:
        UnreachableError: no answer.
        ModelError: it is another model, or that cannot be seen.
    """
    import torch

    tables = chances_at(engine)
    own = []
    for ids, table in zip(_prompts(loaded.renderer), tables, strict=True):
        with torch.inference_mode():
            states = loaded.model.base_model(torch.tensor([ids], device=loaded.model.device)).last_hidden_state
            logs = logits_of(loaded.model, states[0, -1]).double().log_softmax(-1)
        own.append({token: float(logs[token]) if token < len(logs) else -1e9 for token in table})
    need_alike(engine.served.url, tables, own, "the model in this process")


def need_alike(url: str, tables: Chances, others: Chances, whose: str) -> None:
    """Check that the tokens that two models find likely differ in ln P by no more than the tolerance.

    Args:
        url: Root of the server's API, for errors.
        tables: Of the server.
        others: Of the other model; tokens that it does not state are left out.
        whose: Name of the other model, for errors.

    Raises:
        ModelError: they differ by more, or state no token in common.
    """
    gaps = [
        abs(table[token] - other[token])
        for table, other in zip(tables, others, strict=True)
        for token in table.keys() & other.keys()
    ]
    if not gaps or max(gaps) > _TOLERANCE:
        amount = f"ln P of its next token differs by {max(gaps):.2f}" if gaps else "no likely token is common"
        raise ModelError(f"{url} holds another model than {whose} ({amount}).", _OTHER)


def _answered(served: Served, path: str, body: dict[str, Any]) -> Any:
    """Return an answer.

    Raises:
        UnreachableError: there is none, or the server fails.
    """
    response = request_once(served, path, body)
    if response.status_code >= 500:
        raise UnreachableError(
            f"no answer from {served.url}: it answered {response.status_code}{message(response)}.",
            "Check that the server is up.",
        )
    return response


def _prompts(renderer: Renderer) -> list[list[int]]:
    """Return the token ids of a greeting in each mode of the family."""
    return [greeting_of(renderer, mode).ids for mode in renderer.family.modes]


def _tokens(response: Any) -> list[int] | None:
    """Return the token ids in an answer of `/tokenize`; None if it holds none."""
    try:
        ids = read_json(response)["tokens"] if response.is_success else None
    except (ValueError, KeyError, TypeError):
        return None
    return ids if isinstance(ids, list) and all(type(i) is int for i in ids) else None
