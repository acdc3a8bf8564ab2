"""Find prompts that two sets share: exactly, after folding case and punctuation, or nearly, by shared words.

Two texts are nearly the same if the Jaccard similarity of their sets of words is at least `NEAR`. Both tests are
symmetric and need no model, so that a reader can check a claimed split by hand.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

NEAR = 0.7
"""Shared words over all words. Ours: ten-word prompts that differ in one word are near (9/11), in two not (8/12)."""


def fold(text: str) -> str:
    """Return a prompt without case, punctuation and repeated blanks."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return |L ∩ R| / |L ∪ R|, or 1 for two empty sets."""
    union = len(left | right)
    return len(left & right) / union if union else 1.0


def overlaps(left: Sequence[str], right: Sequence[str], near: float = NEAR) -> list[tuple[int, int]]:
    """Return the pairs of indices (i in left, j in right) whose texts are the same or nearly the same.

    Args:
        left: Prompt texts.
        right: Prompt texts of the other set.
        near: Smallest Jaccard similarity of two texts that count as nearly the same, in (0, 1].

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
        # At most the smaller set is shared, so sets of very different sizes need not be compared.
        least, most = near * len(words), len(words) / near
        candidates = {j for word in words for j in holders[word] if least <= len(words_of[j]) <= most}
        pairs += [(i, j) for j in sorted(candidates) if jaccard(words, words_of[j]) >= near]
    return pairs
