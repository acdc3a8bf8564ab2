"""Check before the first token that each prompt and its token budget fit the model's context.

The bound comes from the model's config. A tokenizer's `model_max_length` is not a bound: published values are below
what the model was trained on (DeepSeek-R1-Distill: 16,384 of 131,072), or 10^30.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from presafe.errors import PromptError

P = TypeVar("P")


def context_length(config: Any) -> int | None:
    """Return how many tokens a model's config lets it attend to, or None if it declares no bound.

    If positions are scaled (YaRN, arXiv 2309.00071), the bound is the scaled one, whichever of the two numbers the
    config states.

    Args:
        config: The model's transformers config.
    """
    text = config.get_text_config()
    length = getattr(text, "max_position_embeddings", None)
    if not isinstance(length, int) or length < 1:
        return None
    rope = getattr(text, "rope_parameters", None) or {}
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings") or length
    return max(length, int(factor * original)) if isinstance(factor, int | float) else length


def check_context(
    prompts: Mapping[str, P],
    ids_of: Callable[[P], Sequence[int]],
    max_tokens: int,
    context: int | None,
) -> None:
    """Check that each prompt and its token budget fit a context.

    Args:
        prompts: The prompts or their texts, by their names in errors.
        ids_of: Returns the token ids of a prompt.
        max_tokens: Token budget of an answer.
        context: Largest number of tokens of prompt and answer together; None checks nothing.

    Raises:
        PromptError: some prompts do not fit; the longest is named.
    """
    if context is None:
        return
    lengths = [(len(ids_of(prompt)), name) for name, prompt in prompts.items()]
    too_long = [length for length in lengths if length[0] + max_tokens > context]
    if too_long:
        num_tokens, name = max(too_long)
        raise PromptError(
            f"{len(too_long)} of {len(lengths)} prompts do not fit the model's context of {context:,} tokens: the "
            f"longest, {name}, has {num_tokens:,}, and up to {max_tokens:,} are written after it.",
            f"Lower `max_tokens` to at most {context - num_tokens:,}."
            if num_tokens < context
            else "Leave out the prompts that are too long.",
        )
