"""Which linear maps of a model an adapter is put on, where the recipe leaves it open.

An adapter lies in the language model only: a tower that reads images or sounds is not asked, and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from presafe.config.recipe import AlignSettings

_BLOCK = re.compile(r"\blayers\.\d+\.")


def lora_targets(model: Any, align: AlignSettings) -> list[str]:
    """Return the names of the linear maps that LoRA adapts.

    With the default of the recipe these are all linear maps in the model's decoder blocks: in a dense transformer the
    seven of the default; elsewhere also those of convolutions, linear attention and Mamba, and what a model calls them.
    Three kinds are left out. A Mamba block's output map is read by a fused kernel, which an adapter does not reach. The
    weights of experts are one tensor, and no linear map. An indexer (DeepSeek-V3.2) chooses positions, and its maps get
    no gradient.

    Args:
        model: The causal language model, without an adapter.
        align: Settings of the alignment.
    """
    from torch import nn

    named = list(align.lora_targets)
    if align.lora_targets != AlignSettings.model_fields["lora_targets"].default:
        return named
    modules, outside = dict(model.named_modules()), set(_outside(model))
    linear = [name for name, module in modules.items() if isinstance(module, nn.Linear) and name not in outside]
    inside = [name for name in linear if _BLOCK.search(name) and ".indexer." not in name]
    of_mamba = {name for name in inside if "Mamba" in type(modules[name.rpartition(".")[0]]).__name__}
    names = {name.rpartition(".")[2] for name in inside if name not in of_mamba or not name.endswith(".out_proj")}
    return named if names == set(named) or not names else sorted(names)


def excluded_modules(model: Any, targets: Iterable[str]) -> list[str] | None:
    """Return the modules outside the language model that have a target's name; None if there are none.

    Args:
        model: The causal language model, without an adapter.
        targets: Last parts of the names of the maps that are adapted.
    """
    wanted = set(targets)
    return [name for name in _outside(model) if name.rpartition(".")[2] in wanted] or None


def _outside(model: Any) -> list[str]:
    """Return the names of the modules that are neither in the language model's decoder nor its output layer."""
    if model.config.get_text_config() is model.config:
        return []
    own = {id(module) for module in (*model.get_decoder().modules(), model.get_output_embeddings())}
    return [name for name, module in model.named_modules() if id(module) not in own]
