"""Sequences in padded batches of similar lengths, for one forward pass each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


class Batch(NamedTuple):
    """Some of the sequences, padded on the right."""

    indices: list[int]
    """Index of each row's sequence."""
    ids: Int[Tensor, "rows positions"]
    mask: Int[Tensor, "rows positions"]


def padded_batches(sequences: Sequence[Sequence[int]], batch_size: int, device: Any) -> Iterator[Batch]:
    """Yield every sequence once, the shortest first.

    Args:
        sequences: Token ids.
        batch_size: Largest number of rows in a batch, at least 1.
        device: Device of the tensors.
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
