"""The auxiliary linear head φ on the last hidden state at the decision position (paper, section 4).

During training it is a module of the causal language model, beside `lm_head`, so LoRA, checkpoints and distributed
wrappers include it. It is exported to its own file, `presafe_head.safetensors`; an exported adapter holds no trace of
it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import linear

from presafe.methods.method import Position
from presafe.models.decision_head import HEAD

_INIT_STD = 0.02
"""Standard deviation of the initial weights, the value that transformers uses for its own heads."""


def causal_lm(model: Any) -> nn.Module:
    """Return the causal language model inside a PEFT model, or the model itself."""
    inner: nn.Module = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner


class _Head(nn.Linear):
    """φ of a standardized state, in float32 even if its weights are not: FSDP and ZeRO deliver them in bfloat16.

    It is a module and not a function of the weights, because ZeRO-3 gathers the weights of a module when it is called.
    `mean` and `deviation` are 0 and 1 until `standardize_head` sets them. They are in no checkpoint, because FSDP2
    shards all that is: `standardization` keeps them in a file of their own.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, in_features: int, out_features: int, dtype: torch.dtype) -> None:
        super().__init__(in_features, out_features, dtype=dtype)
        self.register_buffer("mean", torch.zeros(in_features), persistent=False)
        self.register_buffer("deviation", torch.ones(in_features), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits in float32."""
        standardized = (input.float() - self.mean.float()) / self.deviation.float()
        return linear(standardized, self.weight.float(), self.bias.float())


def initial_weight(hidden_size: int, num_outputs: int, seed: int) -> Tensor:
    """Return the weights with which a head starts, of shape (outputs, hidden size)."""
    weight = torch.empty(num_outputs, hidden_size)
    return nn.init.normal_(weight, std=_INIT_STD, generator=torch.Generator().manual_seed(seed))


def attach_head(model: nn.Module, seed: int, num_outputs: int = 1) -> None:
    """Add the auxiliary head to a causal language model, in float32 except under ZeRO-3, before PEFT wraps the model.

    Args:
        model: A Hugging Face causal language model.
        seed: Seed of the initial weights; the bias starts at 0.
        num_outputs: Number of outputs; SafeKey has two heads.
    """
    config = model.config.get_text_config()  # type: ignore[union-attr,operator]
    parameter = next(model.parameters())
    # ZeRO-3 wants one type for all that it shards. A model that was sharded while loading (transformers does so after
    # a first training in this process) is not cast any more; the optimizer's copy is in float32 anyway.
    dtype = parameter.dtype if hasattr(parameter, "ds_id") else torch.float32
    head = _Head(config.hidden_size, num_outputs, dtype=dtype)
    with torch.no_grad():
        head.weight.copy_(initial_weight(config.hidden_size, num_outputs, seed))
    nn.init.zeros_(head.bias)
    setattr(model, HEAD, head.to(parameter.device))


def trained_head(model: Any) -> nn.Module:
    """Return the head in use: the trainable copy that PEFT makes, or the head itself."""
    head: nn.Module = getattr(causal_lm(model), HEAD)
    copies = getattr(head, "modules_to_save", None)
    return copies["default"] if copies is not None else head


def standardize_head(model: Any, mean: Tensor, deviation: Tensor) -> None:
    """Give the head in use the statistics of the states that it reads, each of shape (hidden size)."""
    head = trained_head(model)
    head.mean.copy_(mean)  # type: ignore[operator]
    head.deviation.copy_(deviation)  # type: ignore[operator]


def head_cosine(model: Any, seed: int, state: dict[str, Tensor] | None = None) -> float:
    """Return the cosine between the weights of the head in use and those with which it started.

    Args:
        model: The model that was trained.
        seed: Seed of `attach_head`.
        state: As for `save_head`.
    """
    weight = _weights_of(model, state)["weight"]
    start = initial_weight(weight.shape[1], weight.shape[0], seed)
    cosine = float(torch.nn.functional.cosine_similarity(weight.flatten(), start.flatten(), dim=0))
    return max(-1.0, min(1.0, cosine))


def save_head(
    model: Any,
    folder: Path,
    *,
    position: Position = "prompt_end",
    layer: int | None = None,
    state: dict[str, Tensor] | None = None,
) -> None:
    """Write the head's weight (1, hidden size) and bias (1) as float32, and its position and layer as metadata.

    The statistics of what it reads are folded into both, so that a reader applies them to h itself:

        w · (h − μ) / σ + b = (w / σ) · h + (b − (w / σ) · μ)

    Args:
        model: The model that was trained.
        folder: Where to write.
        position: Position at which it was trained to read.
        layer: Number of the block after which it reads; None: after the final norm.
        state: The model's whole weights by name, if its own parameters are shards (`export.whole_weights`).
    """
    tensors = _weights_of(model, state)
    weight = tensors["weight"] / tensors["deviation"]
    bias = tensors["bias"] - (weight.double() @ tensors["mean"].double()).float()
    weights = {"weight": weight.contiguous(), "bias": bias.contiguous()}
    metadata: dict[str, str] = {"position": position}
    if layer is not None:
        metadata["layer"] = str(layer)
    save_file(weights, str(folder / f"{HEAD}.safetensors"), metadata=metadata)


def _weights_of(model: Any, state: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """Return the weights and statistics of the head in use, in float32."""
    head = trained_head(model)
    if state is None:
        tensors = head.state_dict()
    else:
        prefix = next(name for name, candidate in model.named_modules() if candidate is head)
        tensors = {name: state[f"{prefix}.{name}"] for name in head.state_dict()}
    tensors = tensors | dict(head.named_buffers())
    return {name: tensor.detach().float().cpu() for name, tensor in tensors.items()}
