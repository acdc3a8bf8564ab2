"""The order of training rows: near lengths within a forward pass, all kinds within a step.

Grouping whole steps by length would make steps of short refusals only and steps of long answers only, each with a
gradient towards its own kind only (design/0002). So rows of near length share a forward pass, and the forward passes
that make up a step are drawn at random.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from presafe.errors import RecipeError


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


def share_of_step(batch_size: int, accumulation: int, num_processes: int) -> tuple[int, int]:
    """Rows a forward pass and passes a step for each of several processes, so that a step keeps its rows.

    The trainer deals the groups of a step out in turn, so the processes share the passes; where these do not divide,
    they share the rows of each.

    Args:
        batch_size: Rows a forward pass, in one process.
        accumulation: Forward passes a step, in one process.
        num_processes: At least 1.

    Raises:
        RecipeError: neither can be divided by the number of processes.
    """
    if accumulation % num_processes == 0:
        return batch_size, accumulation // num_processes
    if batch_size % num_processes == 0:
        return batch_size // num_processes, accumulation
    raise RecipeError(
        f"{num_processes} processes cannot share a step of {accumulation} passes of {batch_size} rows.",
        "Make align.accumulation or align.batch_size a multiple of their number.",
    )
