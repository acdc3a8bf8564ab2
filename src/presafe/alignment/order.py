"""The order of training rows: near lengths within a forward pass, all kinds within a step.

Grouping whole steps by length would make steps of short refusals only and steps of long answers only, each with a
gradient towards its own kind only (design/0002). So rows of near length share a forward pass, and the forward passes
that make up a step are drawn at random.
"""

from __future__ import annotations

import random
from collections.abc import Sequence


def mixed_order(lengths: Sequence[int], group: int, num_rows: int, seed: int) -> list[int]:
    """Indices of rows, in groups of near length, the groups in random order, pass after pass.

    Args:
        lengths: Tokens of each row.
        group: Rows of one forward pass, at least 1.
        num_rows: How many indices to return; more than there are rows begins another pass in another order.
        seed: Seed of the order.
    """
    rng = random.Random(seed)
    order: list[int] = []
    while len(order) < num_rows:
        # The noise regroups rows from pass to pass; a tenth of a length costs little padding.
        by_length = sorted(range(len(lengths)), key=lambda row: lengths[row] * rng.uniform(0.9, 1.1))
        groups = [by_length[start : start + group] for start in range(0, len(by_length), group)]
        rng.shuffle(groups)
        order += [row for rows in groups for row in rows]
    return order[:num_rows]
