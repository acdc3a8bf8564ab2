"""A model's dimensions and parameter counts."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, Literal

from presafe.config.bounds import Settings
from presafe.config.engine import is_served
from presafe.errors import ModelError

ModelType = Literal["llama", "qwen2", "qwen3"]
MODEL_TYPES: tuple[ModelType, ...] = ("llama", "qwen2", "qwen3")
"""Values of a config's `model_type` for which plans exist."""


class ModelShape(Settings):
    """Dimensions of a dense decoder with a gated MLP."""

    kind: ModelType
    """The config's `model_type`."""
    vocab_size: int
    """Rows of the embedding."""
    hidden_size: int
    """d, the width of the residual stream."""
    intermediate_size: int
    """Width of the MLP."""
    num_layers: int
    """Decoder layers."""
    num_heads: int
    """Query heads."""
    num_kv_heads: int
    """Key and value heads."""
    head_dim: int
    """Width of a head."""
    tied: bool
    """Whether the language-model head shares the weights of the embedding."""

    def linears(self) -> dict[str, tuple[int, int]]:
        """Return inputs and outputs of the linear maps of one layer, by name."""
        d, f = self.hidden_size, self.intermediate_size
        queries, keys = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        return {
            "q_proj": (d, queries),
            "k_proj": (d, keys),
            "v_proj": (d, keys),
            "o_proj": (queries, d),
            "gate_proj": (d, f),
            "up_proj": (d, f),
            "down_proj": (f, d),
        }

    def num_layer_weights(self) -> int:
        """Count the entries of the matrices of all layers, without embedding and language-model head."""
        return self.num_layers * sum(inputs * outputs for inputs, outputs in self.linears().values())

    def num_parameters(self) -> int:
        """Count all parameters exactly."""
        d, maps = self.hidden_size, self.linears()
        embeddings = self.vocab_size * d * (1 if self.tied else 2)
        norms = 2 * d + (2 * self.head_dim if self.kind == "qwen3" else 0)
        biases = sum(maps[name][1] for name in ("q_proj", "k_proj", "v_proj")) if self.kind == "qwen2" else 0
        return embeddings + self.num_layer_weights() + self.num_layers * (norms + biases) + d

    def num_adapter_parameters(self, rank: int, targets: Sequence[str]) -> int:
        """Count the entries of LoRA's two factors: rank · (inputs + outputs) of every target in every layer.

        Raises:
            ModelError: a layer has no such linear map.
        """
        maps = self.linears()
        if unknown := sorted(set(targets) - maps.keys()):
            raise ModelError(f"no linear map {', '.join(unknown)} in a {self.kind}.", f"There are: {', '.join(maps)}.")
        return self.num_layers * sum(rank * sum(maps[name]) for name in targets)


@cache
def known_shapes() -> dict[str, ModelShape]:
    """Return the shipped shapes by model address."""
    text = (resources.files("presafe.planning") / "shapes.toml").read_text(encoding="utf-8")
    return {address: ModelShape.model_validate(fields) for address, fields in tomllib.loads(text).items()}


def shape_of(address: str) -> ModelShape:
    """Return the shape of the model at an address: shipped, or read from its config, local or on the hub.

    Raises:
        ModelError: its config cannot be read, its type is not supported, or the model is behind a server.
    """
    if address in known_shapes():
        return known_shapes()[address]
    if is_served(address):
        raise ModelError(
            f"no plan for {address}: a served model has no config here.",
            "To plan for it, name its hub id or a folder with its config.json as the address.",
        )
    from transformers import AutoConfig

    try:
        return shape_of_config(AutoConfig.from_pretrained(address, trust_remote_code=False))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].removesuffix(".")
        raise ModelError(
            f"cannot read the config of {address!r}: {reason}.",
            f"Name a folder with its config.json, or one of: {', '.join(known_shapes())}.",
        ) from error


def shape_of_config(config: Any) -> ModelShape:
    """Return the shape that a transformers config describes.

    Raises:
        ModelError: its type is not supported.
    """
    has_biases = getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False)
    if config.model_type not in MODEL_TYPES or has_biases:
        raise ModelError(
            f"no plan for a {config.model_type}" + (" with biases." if config.model_type in MODEL_TYPES else "."),
            f"Known are {', '.join(MODEL_TYPES)}.",
        )
    return ModelShape(
        kind=config.model_type,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        tied=config.tie_word_embeddings,
    )
