"""Does every prompt fit the model's context, with the tokens that it may write? Checked before the first token.

The bound is that of the model's config. A tokenizer's `model_max_length` is no bound: published ones are below what the
model was trained on (DeepSeek-R1-Distill: 16,384 of 131,072), or 10^30.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from presafe.errors import PromptError


def context_length(config: Any) -> int | None:
    """Return how many tokens a model attends to, as its config declares it; None where it declares no bound.

    Where positions are stretched (YaRN, arXiv 2309.00071), the bound is the stretched one, whichever of the two numbers
    the config names.

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
    prompts: Mapping[str, str],
    ids_of: Callable[[str], Sequence[int]],
    max_tokens: int,
    context: int | None,
) -> None:
    """Check that every prompt and what is written after it fit a context.

    Args:
        prompts: The text of every prompt, by the name that an error gives it.
        ids_of: Gives the token ids that a prompt's text is asked with.
        max_tokens: Tokens that may be written.
        context: Tokens of prompt and answer together, at most; None checks nothing.

    Raises:
        PromptError: some do not; the longest is named.
    """
    if context is None:
        return
    lengths = [(len(ids_of(text)), name) for name, text in prompts.items()]
    too_long = [length for length in lengths if length[0] + max_tokens > context]
    if too_long:
        num_tokens, name = max(too_long)
        raise PromptError(
            f"{len(too_long)} of {len(lengths)} prompts do not fit the model's context of {context:,} tokens: the "
            f"longest, {name}, has {num_tokens:,}, and up to {max_tokens:,} are written after it.",
            f"Lower the token budget to at most {context - num_tokens:,}." * (num_tokens < context)
            or "Leave out the prompts that are too long.",
        )
