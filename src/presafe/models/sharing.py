"""Which prompts have a common beginning, so that its keys and values are computed once.

The prompt with CoT off begins with the prompt with CoT on, and several answers to one prompt have all of it in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_WORTH = 64
"""Tokens that sharing must save together: it costs one more forward pass. Ours."""


class Shared(NamedTuple):
    """A prompt whose beginning another row has."""

    prompt: int
    """Index of the prompt."""
    owner: int
    """The row that has the beginning: an index into the running rows, followed by the prompts."""
    num_tokens: int
    """Tokens of the beginning; at least one token of the prompt comes after them."""


def share(running: Sequence[Sequence[int]], prompts: Sequence[Sequence[int]]) -> tuple[list[int], list[Shared]]:
    """Split prompts into those that are read whole and those that share their beginning.

    Args:
        running: Token ids of the prompts whose rows are in the cache.
        prompts: Token ids of the prompts that join them, each not empty.

    Returns:
        Indices of the prompts that are read whole; and the others, which all have the same number of tokens after
        their beginning. A beginning is shared if it is at least half of the prompt.
    """
    owners = list(enumerate(running))
    whole: list[int] = []
    shared: list[Shared] = []
    for index, ids in enumerate(prompts):
        owner, common = max(((owner, _common(ids, other)) for owner, other in owners), key=_second, default=(0, 0))
        if 2 * common >= len(ids) > 1:
            shared.append(Shared(index, owner, min(common, len(ids) - 1)))
        else:
            owners.append((len(running) + index, ids))
            whole.append(index)
    rest = max((len(prompts[part.prompt]) - part.num_tokens for part in shared), default=0)
    shared = [part._replace(num_tokens=len(prompts[part.prompt]) - rest) for part in shared]
    if any(part.num_tokens < 1 for part in shared) or sum(part.num_tokens for part in shared) < _WORTH:
        return list(range(len(prompts))), []
    return whole, shared


def _second(pair: tuple[int, int]) -> int:
    return pair[1]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the number of tokens with which both begin."""
    for index, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return index
    return min(len(one), len(other))
