"""The order of training rows: rows of near length within a forward pass, all kinds within a step.

Grouping whole steps by length would make steps of short refusals only and steps of long answers only, each with a
gradient towards its own kind only. If forward passes are drawn at random, a quarter of the steps of two passes still
hold one kind only (design/0002). So rows of one kind and near length share a forward pass, and the kinds take turns in
proportion to their rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice

from presafe.errors import RecipeError


def mixed_order(lengths: Sequence[int], kinds: Sequence[str], group: int, num_rows: int, seed: int) -> list[int]:
    """Return indices of rows: groups of one kind and of near length, each kind spread evenly.

    Args:
        lengths: Tokens of each row.
        kinds: Kind of each row, such as a refusal or an answer.
        group: Rows of one forward pass, at least 1.
        num_rows: How many indices to return; a kind with fewer rows is repeated, in a new order each pass.
        seed: Seed of the order.
    """
    rng = random.Random(seed)
    by_kind = {kind: [row for row, of_row in enumerate(kinds) if of_row == kind] for kind in sorted(set(kinds))}
    streams = {kind: _stream(rows, lengths, group, rng) for kind, rows in by_kind.items()}
    due = {kind: group / len(rows) / 2 for kind, rows in by_kind.items()}  # forward passes until its next group
    order: list[int] = []
    while len(order) < num_rows:
        kind = min(due, key=due.__getitem__)
        due[kind] += group / len(by_kind[kind])
        order += islice(streams[kind], group)
    return order[:num_rows]


def _stream(rows: Sequence[int], lengths: Sequence[int], group: int, rng: random.Random) -> Iterator[int]:
    """Yield rows of one kind forever, in groups of near length, the groups in a new random order each pass."""
    while True:
        # The noise regroups rows from pass to pass; a tenth of a length costs little padding.
        by_length = sorted(rows, key=lambda row: lengths[row] * rng.uniform(0.9, 1.1))
        groups = [by_length[start : start + group] for start in range(0, len(by_length), group)]
        rng.shuffle(groups)
        yield from (row for rows_of_group in groups for row in rows_of_group)


def share_of_step(batch_size: int, accumulation: int, num_processes: int) -> tuple[int, int]:
    """Return rows per forward pass and passes per step for each process, so that a step keeps its rows.

    The trainer hands out the groups of a step in turn, so the processes share the passes; if the number of passes is
    not divisible by the number of processes, they share the rows of each pass.

    Args:
        batch_size: Rows per forward pass, in one process.
        accumulation: Forward passes per step, in one process.
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
