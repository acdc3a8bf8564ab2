"""The auxiliary linear head φ on the last hidden state at the decision position (paper, section 4).

It lives on the causal language model beside `lm_head` while training, so that LoRA, checkpoints and distributed
wrappers carry it along. It is exported apart, as `presafe_head.safetensors`, and an exported adapter knows
nothing of it.
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
"""Standard deviation of the initial weights, as transformers initialises its own heads."""


def causal_lm(model: Any) -> nn.Module:
    """The causal language model inside a PEFT model, or the model itself."""
    inner: nn.Module = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner


class _Head(nn.Linear):
    """φ, with a product in float32 where its weights are not: FSDP and ZeRO hand them over in bfloat16.

    It is a module of its own and no function of the weights, because ZeRO-3 gathers them where a module is called.
    """

    def forward(self, input: Tensor) -> Tensor:
        return linear(input.float(), self.weight.float(), self.bias.float())


def attach_head(model: nn.Module, seed: int, num_outputs: int = 1) -> None:
    """Give a causal language model its auxiliary head, in float32 but for ZeRO-3, before PEFT wraps it.

    Args:
        model: A Hugging Face causal language model.
        seed: Seed of the initial weights; the bias starts at 0.
        num_outputs: Heads in one: SafeKey has two.
    """
    config = model.config.get_text_config()  # type: ignore[union-attr,operator]
    own = next(model.parameters())
    # ZeRO-3 wants one type of what it cuts. A model that was cut as it was loaded (transformers does so once one was
    # trained in this process) is not cast any more; the optimiser's copy is in float32 all the same.
    dtype = own.dtype if hasattr(own, "ds_id") else torch.float32
    head = _Head(config.hidden_size, num_outputs, dtype=dtype)
    nn.init.normal_(head.weight, std=_INIT_STD, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(head.bias)
    setattr(model, HEAD, head.to(own.device))


def trained_head(model: Any) -> nn.Module:
    """The head in use: the trainable copy that PEFT makes, or the head itself."""
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
    """Write the head's weight (1, hidden size) and bias (1) as float32, and in the file's metadata where it reads.

    Args:
        model: The model that was trained.
        folder: Where to write.
        position: Where it was trained to read.
        layer: Block after which it reads; None is after the final norm.
        state: The model's weights by name, where its own parameters are shards of them (`export.whole_weights`).
    """
    own = trained_head(model)
    found = own.state_dict() if state is None else _weights_of(own, model, state)
    weights = {name: value.detach().float().cpu().contiguous() for name, value in found.items()}
    where: dict[str, str] = {"position": position} | ({} if layer is None else {"layer": str(layer)})
    save_file(weights, str(folder / f"{HEAD}.safetensors"), metadata=where)


def _weights_of(part: nn.Module, model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one module out of those of the model that holds it."""
    prefix = next(name for name, module in model.named_modules() if module is part)
    return {name: state[f"{prefix}.{name}"] for name in part.state_dict()}
