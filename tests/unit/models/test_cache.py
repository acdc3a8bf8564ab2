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


def filled(rows: int, positions: int, seed: int) -> GrowingLayer:
    layer = GrowingLayer()
    generator = torch.Generator().manual_seed(seed)
    layer.update(*(torch.randn(rows, 2, positions, 4, generator=generator) for _ in range(2)))
    return layer


def test_new_rows_end_where_the_others_do() -> None:
    layer, new = filled(3, 7, seed=0), filled(2, 4, seed=1)
    old = layer.keys.clone()
    old[2, :, :3] = torch.nan
    layer.keys[2, :, :3] = torch.nan  # what a broken row left must not reach the row that comes after it
    layer.place(torch.tensor([2, 0]), new)
    assert torch.equal(layer.keys[1], old[1])
    for place, row in ((2, 0), (0, 1)):
        assert torch.equal(layer.keys[place, :, 3:], new.keys[row])
        assert torch.equal(layer.values[place, :, 3:], new.values[row])
        assert not layer.keys[place, :, :3].any()


def test_dropped_and_added_positions_leave_the_rest_as_it_was() -> None:
    layer = filled(2, 9, seed=0)
    kept, where = layer.keys[:, :, 5:].clone(), layer.keys.data_ptr()
    layer.drop_first(5)
    assert torch.equal(layer.keys, kept)
    more = torch.ones(2, 2, 1, 4)
    keys, _ = layer.update(more, more)
    assert torch.equal(keys, torch.cat([kept, more], dim=2))
    assert keys.data_ptr() == where + 5 * 4 * 4  # five positions of four float32 numbers further: nothing was copied
    layer.widen(2)
    assert torch.equal(layer.keys, torch.cat([torch.zeros(2, 2, 2, 4), kept, more], dim=2))


def test_positions_of_rows_are_picked() -> None:
    layer = filled(3, 6, seed=0)
    keys, values = layer.picked(torch.tensor([2, 2, 0]), torch.tensor([[1, 2], [3, 4], [0, 5]]))
    assert torch.equal(keys[0], layer.keys[2, :, 1:3])
    assert torch.equal(values[1], layer.values[2, :, 3:5])
    assert torch.equal(keys[2], layer.keys[0][:, [0, 5]])
