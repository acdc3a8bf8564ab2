"""Which linear maps of a model an adapter is put on, where the recipe leaves it open."""

from __future__ import annotations

import re
from typing import Any

from presafe.config.recipe import AlignSettings

_BLOCK = re.compile(r"\blayers\.\d+\.")


def lora_targets(model: Any, align: AlignSettings) -> list[str]:
    """Return the names of the linear maps that LoRA adapts.

    With the default of the recipe these are all linear maps in the model's decoder blocks: in a dense transformer the
    seven of the default; elsewhere also those of convolutions, linear attention and Mamba, and what a model calls them.
    Two kinds are left out. A Mamba block's output map is read by a fused kernel, which an adapter does not reach. The
    weights of experts are one tensor, and no linear map.

    Args:
        model: The causal language model, without an adapter.
        align: Settings of the alignment.
    """
    from torch import nn

    named = list(align.lora_targets)
    if align.lora_targets != AlignSettings.model_fields["lora_targets"].default:
        return named
    modules = dict(model.named_modules())
    inside = [name for name, module in modules.items() if isinstance(module, nn.Linear) and _BLOCK.search(name)]
    of_mamba = {name for name in inside if "Mamba" in type(modules[name.rpartition(".")[0]]).__name__}
    names = {name.rpartition(".")[2] for name in inside if name not in of_mamba or not name.endswith(".out_proj")}
    return named if names == set(named) or not names else sorted(names)
