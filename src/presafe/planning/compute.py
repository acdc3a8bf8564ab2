"""Operations and bytes of training a LoRA and of decoding.

A product of (m, k) and (k, n) takes 2·m·k·n floating-point operations. With T tokens in a row, C of them scored, W the
entries of the layers' matrices, A the entries of the adapter, d·V the language-model head, and attention over all T²
pairs:

    forward    2·T·(W + A) + 2·C·d·V + 4·T²·heads·head_dim·layers
    backward   the frozen matrices pass a gradient on and receive none, so they cost one more forward, the adapter two;
               attention costs two
    repeat     with checkpointed activations, the forward of the layers is computed a second time
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from presafe.planning.shapes import ModelShape

BYTES = {"float32": 4, "bfloat16": 2}
"""Bytes of one number, by type."""
ADAM_BYTES = 16
"""Bytes of a trained parameter in float32, its gradient, and Adam's two moments."""


class Row(NamedTuple):
    """One training row: its tokens, and how many of them are scored."""

    num_tokens: float
    num_scored: float


class ForwardPass(NamedTuple):
    """Size of one forward pass of training."""

    num_rows: int
    num_tokens: float
    """Tokens per row, padded."""
    num_logits: float
    """Scored positions of the whole pass whose logits, in float32, are held at once together with their gradient."""


class TrainingBytes(NamedTuple):
    """Bytes on one device at the peak of a step."""

    weights: float
    adapter: float
    activations: float

    def total(self) -> float:
        """Return the sum of all parts."""
        return sum(self)


def forward_flops(shape: ModelShape, num_tokens: float, num_scored: float, num_adapter: int = 0) -> float:
    """Return the operations of one row's forward pass."""
    return (
        2 * num_tokens * (shape.num_layer_weights() + num_adapter)
        + 2 * num_scored * shape.hidden_size * shape.vocab_size
        + _attention_flops(shape, num_tokens)
    )


def training_flops(shape: ModelShape, row: Row, num_adapter: int, *, checkpointing: bool) -> float:
    """Return the operations of one row's forward and backward pass; only the adapter is trained."""
    layers = 2 * row.num_tokens * (shape.num_layer_weights() + num_adapter) + _attention_flops(shape, row.num_tokens)
    backward = (
        2 * row.num_tokens * (shape.num_layer_weights() + 2 * num_adapter)
        + 2 * row.num_scored * shape.hidden_size * shape.vocab_size
        + 2 * _attention_flops(shape, row.num_tokens)
    )
    forward = forward_flops(shape, *row, num_adapter)
    return forward + backward + (layers if checkpointing else 0.0)


def _attention_flops(shape: ModelShape, num_tokens: float) -> float:
    """Return the operations of the scores and of their product with the values, over all pairs of positions."""
    return 4 * num_tokens**2 * shape.num_heads * shape.head_dim * shape.num_layers


def layer_activations(shape: ModelShape, rank: int, targets: Sequence[str]) -> int:
    """Return how many numbers per token one layer keeps for its backward pass.

    Two norms keep their inputs and, as inputs of LoRA, their outputs (4 d). Attention keeps q, k, v and its output,
    which LoRA also reads. The MLP keeps gate, its activation, up and their product. LoRA keeps `rank` numbers per
    target.
    """
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    return 4 * shape.hidden_size + 2 * queries + 2 * keys + 4 * shape.intermediate_size + rank * len(targets)


def training_bytes(
    shape: ModelShape,
    rank: int,
    targets: Sequence[str],
    forward: ForwardPass,
    *,
    dtype: str,
    checkpointing: bool,
    shards: int = 1,
) -> TrainingBytes:
    """Return the bytes on one device at the peak of a step.

    Args:
        shape: The model.
        rank: LoRA's rank.
        targets: LoRA's targets.
        forward: Size of a forward pass.
        dtype: Type of the frozen weights and the activations, a key of `BYTES`.
        checkpointing: Keep only the inputs of layers, and compute the activations of one layer at a time again.
        shards: Number of devices over which weights and adapter are split; each device also gathers the layer that it
            computes, and the embeddings.
    """
    size, per_layer = BYTES[dtype], layer_activations(shape, rank, targets)
    inputs = shape.num_layers * shape.hidden_size
    per_token = inputs + per_layer if checkpointing else shape.num_layers * per_layer
    logits = 2 * 4 * forward.num_logits * shape.vocab_size
    gathered = shape.num_layer_weights() / shape.num_layers + shape.hidden_size * shape.vocab_size if shards > 1 else 0
    num_trained = shape.num_adapter_parameters(rank, targets) + shape.hidden_size + 1
    return TrainingBytes(
        weights=size * (shape.num_parameters() / shards + gathered),
        adapter=ADAM_BYTES * num_trained / shards,
        activations=size * forward.num_rows * forward.num_tokens * per_token + logits,
    )


def cache_bytes(shape: ModelShape, dtype: str) -> int:
    """Return the bytes of keys and values that one token adds to the cache."""
    return 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * BYTES[dtype]
