"""Do two prompt sets share a prompt? Exactly, after folding case and punctuation, or nearly, by shared words.

A near match is a Jaccard similarity of the two sets of words of at least `NEAR`. Both tests are symmetric and
need no model, so that a reader can check a claimed split by hand.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

NEAR = 0.7
"""Words shared over words in either. Ours: ten-word prompts with one other word are near (9/11), two are not (8/12)."""


def fold(text: str) -> str:
    """The prompt without case, punctuation and repeated blanks."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """|L ∩ R| / |L ∪ R|, and 1 for two empty sets."""
    union = len(left | right)
    return len(left & right) / union if union else 1.0


def overlaps(left: Sequence[str], right: Sequence[str], near: float = NEAR) -> list[tuple[int, int]]:
    """Pairs of indices (i in left, j in right) whose texts are the same or nearly the same.

    Args:
        left: Prompt texts.
        right: Prompt texts of the other set.
        near: Jaccard similarity from which two texts count as the same, in (0, 1].

    Returns:
        The pairs, in order of the left set.
    """
    words_of = [frozenset(fold(text).split()) for text in right]
    holders: dict[str, list[int]] = defaultdict(list)
    for j, words in enumerate(words_of):
        for word in words:
            holders[word].append(j)
    pairs = []
    for i, text in enumerate(left):
        words = frozenset(fold(text).split())
        # At most the smaller set is shared, so sets of too different size need no counting.
        least, most = near * len(words), len(words) / near
        candidates = {j for word in words for j in holders[word] if least <= len(words_of[j]) <= most}
        pairs += [(i, j) for j in sorted(candidates) if jaccard(words, words_of[j]) >= near]
    return pairs
