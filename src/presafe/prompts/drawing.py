"""Draw a sample of a suite's prompts: over its categories in proportion, or the first ones."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from presafe.config.sources import Draw
from presafe.records import Prompt


def stratified(prompts: Sequence[Prompt], limit: int, seed: int = 0) -> list[Prompt]:
    """Draw prompts so that each category has its share, to the nearest prompt; their order is kept.

    A file that is sorted by category would give a sample of its first categories only.

    Args:
        prompts: All prompts.
        limit: Number of prompts to draw; all are taken if there are no more.
        seed: Seed of the draw within each category.
    """
    if limit >= len(prompts):
        return list(prompts)
    sizes = Counter(prompt.category for prompt in prompts)
    exact = {category: limit * size / len(prompts) for category, size in sizes.items()}
    quotas = {category: int(share) for category, share in exact.items()}
    # largest remainders first; among equal ones the larger category, then the one that comes first
    by_remainder = sorted(exact, key=lambda category: (quotas[category] - exact[category], -sizes[category]))
    for category in by_remainder[: limit - sum(quotas.values())]:
        quotas[category] += 1
    generator = random.Random(seed)
    places: dict[str, list[int]] = {category: [] for category in sizes}
    for place, prompt in enumerate(prompts):
        places[prompt.category].append(place)
    drawn = [place for category in sizes for place in generator.sample(places[category], quotas[category])]
    return [prompts[place] for place in sorted(drawn)]


def draw(prompts: Sequence[Prompt], limit: int | None, how: Draw, seed: int = 0) -> list[Prompt]:
    """Return at most `limit` prompts; None takes all. Prompts of a single category are taken from the top.

    Args:
        prompts: All prompts of a suite.
        limit: Most prompts to take.
        how: "stratified" draws over the categories; "first" takes the first ones.
        seed: Seed of the draw.
    """
    if limit is None or how == "first" or len({prompt.category for prompt in prompts}) < 2:
        return list(prompts[:limit])
    return stratified(prompts, limit, seed)
