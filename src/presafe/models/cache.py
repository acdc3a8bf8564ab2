"""A key-value cache that grows in steps, so that appending a token copies nothing; and which prompts use pages.

transformers' `DynamicLayer` concatenates, which copies the cache at every token. That took a fifth of the time to
decode SmolThink in batches of 64 on two CPU cores. Here, new prompts can also take the place of finished rows, and
positions that no row needs any more are dropped without a copy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

PAGE = 256
"""Tokens per page of a paged cache; FlashAttention's kernel accepts only multiples of it."""
_SPARE = 64
"""Smallest number of positions added at a time; larger caches grow by half, so that copies stay rare."""


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, as views of buffers with room for more positions."""

    keys: Any
    values: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rooms: list[Tensor] | None = None
        self._start = 0
        """Position in the buffers of the first position of the cache."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append states of shape (rows, heads, new positions, width), and return old and new states together."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        needed = length + key_states.shape[-2]
        if self._rooms is None or self._start + needed > self._rooms[0].shape[-2]:
            rooms = [_room(states, needed + max(_SPARE, needed // 2)) for states in (key_states, value_states)]
            if length:
                rooms[0][..., :length, :] = self.keys
                rooms[1][..., :length, :] = self.values
            self._rooms, self._start = rooms, 0
        first = self._start
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[..., first + length : first + needed, :] = states
        self.keys = self._rooms[0][..., first : first + needed, :]
        self.values = self._rooms[1][..., first : first + needed, :]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep these rows, in this order, a row perhaps several times; new buffers are made at the next token."""
        super().reorder_cache(beam_idx)
        self._rooms = None

    def place(self, rows: Tensor, states: GrowingLayer) -> None:
        """Overwrite rows with those of another layer, which end at the same position.

        Args:
            rows: Indices of the rows, one for each row of `states`.
            states: The other layer, with at most as many positions as this one.
        """
        length = states.get_seq_length()
        for mine, theirs in ((self.keys, states.keys), (self.values, states.values)):
            # Zeros, not what a finished row left: it may be not finite, and 0 × NaN is NaN, also where it is masked.
            mine[rows, :, : mine.shape[-2] - length] = 0
            mine[rows, :, mine.shape[-2] - length :] = theirs

    def picked(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of rows at positions.

        Args:
            rows: Indices of shape (n,); a row may occur several times.
            positions: Indices of shape (n, m).

        Returns:
            Copies of shape (n, heads, m, width).
        """
        index = (rows[:, None], slice(None), positions)
        return self.keys[index].transpose(1, 2), self.values[index].transpose(1, 2)

    def drop_first(self, positions: int) -> None:
        """Drop the first positions; nothing is copied."""
        self.keys, self.values = self.keys[..., positions:, :], self.values[..., positions:, :]
        self._start += positions

    def widen(self, positions: int) -> None:
        """Put empty positions before the first; new buffers are made at the next token."""
        zeros = self.keys.new_zeros(*self.keys.shape[:2], positions, self.keys.shape[-1])
        self.keys, self.values = torch.cat([zeros, self.keys], dim=-2), torch.cat([zeros, self.values], dim=-2)
        self._rooms = None


def growing_cache(config: Any) -> DynamicCache:
    """Return the cache of a model, with a `GrowingLayer` for each layer that attends to all earlier positions.

    Args:
        config: The model's transformers config.
    """
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def is_growing(cache: DynamicCache) -> bool:
    """Return whether each layer attends to all earlier positions, so that rows can be placed and positions dropped."""
    return all(isinstance(layer, GrowingLayer) for layer in cache.layers)


def can_page(model: Any, num_tokens: int, batch_tokens: int) -> bool:
    """Return whether a prompt can be decoded with a paged cache (`paged`).

    It can on CUDA, if every layer attends to all earlier positions and the prompt with its budget fits into the cache.

    Args:
        model: The causal language model.
        num_tokens: Tokens of the prompt and its budget together.
        batch_tokens: Tokens that the cache holds.
    """
    if model.device.type != "cuda" or num_tokens > batch_tokens // PAGE * PAGE:
        return False
    return is_growing(growing_cache(model.config))


def _room(states: Tensor, positions: int) -> Tensor:
    """Return an empty buffer like these states, with this many positions."""
    return torch.empty((*states.shape[:2], positions, states.shape[-1]), dtype=states.dtype, device=states.device)
