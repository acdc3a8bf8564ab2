"""Prompts in padded batches of near lengths, for one forward pass each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Batch(NamedTuple):
    """Some of the sequences, padded on the right."""

    indices: list[int]
    """Which they are."""
    ids: Tensor
    mask: Tensor


def batches(sequences: Sequence[Sequence[int]], batch_size: int, device: Any) -> Iterator[Batch]:
    """Every sequence once, the shortest first.

    Args:
        sequences: Token ids.
        batch_size: Rows a batch, at most.
        device: Where the tensors go.
    """
    import torch

    by_length = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    for start in range(0, len(by_length), batch_size):
        indices = by_length[start : start + batch_size]
        width = max(len(sequences[index]) for index in indices)
        ids = torch.zeros(len(indices), width, dtype=torch.long, device=device)
        mask = torch.zeros_like(ids)
        for row, index in enumerate(indices):
            ids[row, : len(sequences[index])] = torch.tensor(sequences[index])
            mask[row, : len(sequences[index])] = 1
        yield Batch(indices, ids, mask)
