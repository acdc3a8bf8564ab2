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
    """φ, computed in float32 even if its weights are not: FSDP and ZeRO deliver them in bfloat16.

    It is a module and not a function of the weights, because ZeRO-3 gathers the weights of a module when it is called.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits in float32."""
        return linear(input.float(), self.weight.float(), self.bias.float())


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
    nn.init.normal_(head.weight, std=_INIT_STD, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(head.bias)
    setattr(model, HEAD, head.to(parameter.device))


def trained_head(model: Any) -> nn.Module:
    """Return the head in use: the trainable copy that PEFT makes, or the head itself."""
    head: nn.Module = getattr(causal_lm(model), HEAD)
    copies = getattr(head, "modules_to_save", None)
    return copies["default"] if copies is not None else head


def save_head(
    model: Any,
    folder: Path,
    *,
    position: Position = "prompt_end",
    layer: int | None = None,
    state: dict[str, Tensor] | None = None,
) -> None:
    """Write the head's weight (1, hidden size) and bias (1) as float32, and its position and layer as metadata.

    Args:
        model: The model that was trained.
        folder: Where to write.
        position: Position at which it was trained to read.
        layer: Number of the block after which it reads; None: after the final norm.
        state: The model's whole weights by name, if its own parameters are shards (`export.whole_weights`).
    """
    head = trained_head(model)
    tensors = head.state_dict() if state is None else _weights_of(head, model, state)
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    metadata: dict[str, str] = {"position": position}
    if layer is not None:
        metadata["layer"] = str(layer)
    save_file(weights, str(folder / f"{HEAD}.safetensors"), metadata=metadata)


def _weights_of(module: nn.Module, model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Select the weights of one module from the whole weights of the model that holds it."""
    prefix = next(name for name, candidate in model.named_modules() if candidate is module)
    return {name: state[f"{prefix}.{name}"] for name in module.state_dict()}
