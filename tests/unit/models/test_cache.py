"""The growing cache holds, token by token, exactly what transformers' own cache holds."""

from __future__ import annotations

import torch
from transformers import DynamicCache, LlamaConfig, MistralConfig
from transformers.cache_utils import DynamicLayer

from presafe.models.cache import GrowingLayer, growing_cache


def test_cache_equals_the_concatenating_layer() -> None:
    torch.manual_seed(0)
    ours, theirs = GrowingLayer(), DynamicLayer()
    rows = 5
    for step, width in enumerate([7, *[1] * 200]):
        keys, values = torch.randn(rows, 2, width, 4), torch.randn(rows, 2, width, 4)
        for mine, reference in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(mine, reference)
        assert ours.get_seq_length() == theirs.get_seq_length() == 7 + step
        if step in (3, 90):
            kept = torch.tensor([0, *range(2, rows)])
            ours.reorder_cache(kept)
            theirs.batch_select_indices(kept)
            rows -= 1


def test_most_tokens_copy_nothing() -> None:
    layer = GrowingLayer()
    buffers = set()
    for _ in range(300):
        keys, _ = layer.update(torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 1, 4))
        buffers.add(keys.data_ptr())
    assert len(buffers) <= 6


def test_only_layers_that_attend_to_everything_are_replaced() -> None:
    full = growing_cache(LlamaConfig(num_hidden_layers=2))
    assert [type(layer) for layer in full.layers] == [GrowingLayer, GrowingLayer]
    sliding = MistralConfig(num_hidden_layers=2, sliding_window=16)
    assert [type(layer) for layer in growing_cache(sliding).layers] == [
        type(layer) for layer in DynamicCache(config=sliding).layers
    ]
