"""Matrix products and bytes of training a LoRA and of decoding.

A product of (m, k) and (k, n) is 2·m·k·n floating-point operations. With T tokens of a row, C of them scored, W the
entries of the layers' matrices, A those of the adapter, d·V the language-model head, and attention over all T² pairs:

    forward    2·T·(W + A) + 2·C·d·V + 4·T²·heads·head_dim·layers
    backward   the frozen matrices pass a gradient on and get none, so they cost one forward again, the adapter two;
               attention costs two
    again      where activations are checkpointed, the layers' forward is done a second time
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from presafe.planning.shapes import ModelShape

BYTES = {"float32": 4, "bfloat16": 2}
ADAM_BYTES = 16
"""A trained parameter in float32, its gradient, and Adam's two moments."""


class Row(NamedTuple):
    """One training row: its tokens, and how many of them are scored."""

    num_tokens: float
    num_scored: float


class TrainingBytes(NamedTuple):
    """Bytes on one device at the peak of a step."""

    weights: float
    adapter: float
    activations: float

    def total(self) -> float:
        """All of them."""
        return sum(self)


def forward_flops(shape: ModelShape, num_tokens: float, num_scored: float, num_adapter: int = 0) -> float:
    """Operations of one row's forward pass."""
    return (
        2 * num_tokens * (shape.num_layer_weights() + num_adapter)
        + 2 * num_scored * shape.hidden_size * shape.vocab_size
        + _attention_flops(shape, num_tokens)
    )


def training_flops(shape: ModelShape, row: Row, num_adapter: int, *, checkpointing: bool) -> float:
    """Operations of one row's forward and backward pass through a model whose adapter alone is trained."""
    layers = 2 * row.num_tokens * (shape.num_layer_weights() + num_adapter) + _attention_flops(shape, row.num_tokens)
    backward = (
        2 * row.num_tokens * (shape.num_layer_weights() + 2 * num_adapter)
        + 2 * row.num_scored * shape.hidden_size * shape.vocab_size
        + 2 * _attention_flops(shape, row.num_tokens)
    )
    forward = forward_flops(shape, *row, num_adapter)
    return forward + backward + (layers if checkpointing else 0.0)


def _attention_flops(shape: ModelShape, num_tokens: float) -> float:
    """Scores and their product with the values, over all pairs."""
    return 4 * num_tokens**2 * shape.num_heads * shape.head_dim * shape.num_layers


def layer_activations(shape: ModelShape, rank: int, targets: Sequence[str]) -> int:
    """Numbers a token that one layer keeps for its backward pass.

    Two norms keep what they read and, as input of LoRA, what they write (4 d). Attention keeps q, k, v and its output,
    which LoRA reads too. The MLP keeps gate, its activation, up and their product. LoRA keeps `rank`
    numbers a target.
    """
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    return 4 * shape.hidden_size + 2 * queries + 2 * keys + 4 * shape.intermediate_size + rank * len(targets)


def training_bytes(
    shape: ModelShape,
    num_adapter: int,
    *,
    dtype: str,
    rank: int,
    targets: Sequence[str],
    num_rows: int,
    num_tokens: float,
    num_logits: float,
    checkpointing: bool,
    shards: int = 1,
) -> TrainingBytes:
    """Bytes of one device at the peak of a step.

    Args:
        shape: The model.
        num_adapter: Parameters of the adapter.
        dtype: Type of the frozen weights and of activations.
        rank: LoRA's rank.
        targets: LoRA's targets.
        num_rows: Rows of a forward pass.
        num_tokens: Tokens of each, padded.
        num_logits: Scored positions of the whole pass whose logits are held at once, in float32, with their gradient.
        checkpointing: Keep the inputs of layers only, and make one layer's activations again at a time.
        shards: Over how many devices weights and adapter are cut; each also gathers the layer that it is at, and the
            embeddings.
    """
    size, kept = BYTES[dtype], layer_activations(shape, rank, targets)
    layers = shape.num_layers * shape.hidden_size + kept if checkpointing else shape.num_layers * kept
    head = 2 * 4 * num_logits * shape.vocab_size
    gathered = shape.num_layer_weights() / shape.num_layers + shape.hidden_size * shape.vocab_size if shards > 1 else 0
    return TrainingBytes(
        weights=size * (shape.num_parameters() / shards + gathered),
        adapter=ADAM_BYTES * (num_adapter + shape.hidden_size + 1) / shards,
        activations=size * num_rows * num_tokens * layers + head,
    )


def cache_bytes(shape: ModelShape, dtype: str) -> int:
    """Bytes of keys and values that a token leaves in the cache."""
    return 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * BYTES[dtype]
