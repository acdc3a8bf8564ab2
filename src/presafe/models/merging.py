"""Check layer by layer that a merged model is the model that was trained.

    share = ⟨m − b, a − b⟩ / ‖a − b‖²       m, a, b: outputs of a layer merged, with the adapter beside it, without it

The share of the adapter that is in the merged layer is near 1 although the merge rounds the weights, because most of
the rounding has nothing to do with the adapter. The logits of the whole model cannot show it: in bfloat16, the rounding
of 30 blocks changes them by up to a fifth of the largest, as much as an adapter that was left out.

The experts of a mixture are one tensor, which no layer reads alone. Its product with a fixed vector stands for outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

_ROWS = 8
"""Inputs on which a layer is compared."""
_ROUNDING = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2}
"""Largest difference between the merged layer and the trained one, as a share of the output's norm, by type of the
weights. Ours: in bfloat16 rounding gives 0.002."""
_MOST_MISSING = 0.5
"""How far the share of the adapter may be from 1. Ours: bfloat16 swallows what is below half of its last place, in one
layer of 210 of a trained adapter 17 %; an adapter that was left out has a share of 0, one that was merged twice 2."""


class Layers(NamedTuple):
    """What the parts of a model with an adapter compute; outputs on fixed inputs, by name of the layer."""

    adapted: Mapping[str, Tensor]
    """Outputs of the layers with the adapter; of experts by name of their tensor."""
    base: Mapping[str, Tensor]
    """Outputs of the same layers without it."""
    rest: Mapping[str, float]
    """Sum of each weight that the adapter does not change, by name."""


def read_layers(adapted: Any) -> Layers:
    """Return what the layers of a PEFT model compute before the merge.

    Args:
        adapted: The PEFT model.
    """
    from peft.tuners.lora.layer import ParamWrapper
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    model = adapted.get_base_model()
    modules = dict(model.named_modules())
    # layers that are trained whole, or a few tokens of them; what lies in one is no layer of the merged model
    whole = {name: module for name, module in modules.items() if isinstance(module, AuxiliaryTrainingWrapper)}
    inner = tuple(f"{name}." for name in whole)
    found = {
        name: module
        for name, module in modules.items()
        if isinstance(module, BaseTunerLayer) and not name.startswith(inner)
    }
    layers = {name: layer for name, layer in found.items() if not isinstance(layer, ParamWrapper)}
    plain = {name: layer.get_base_layer() for name, layer in layers.items()}
    plain |= {name: layer.original_module for name, layer in whole.items()}
    outputs = {name: _output(layer, plain[name]) for name, layer in {**layers, **whole}.items()}
    base = {name: _output(layer, layer) for name, layer in plain.items()}
    for name, wrapper in found.items():
        if isinstance(wrapper, ParamWrapper):  # one lies in another where two tensors of one module are adapted
            tensor = f"{name.partition('.base_layer')[0]}.{wrapper.parameter_name}"
            base[tensor] = _product(wrapper.get_param())
            outputs[tensor] = base[tensor] + sum(_product(wrapper.get_delta_weight(a)) for a in wrapper.active_adapters)
    return Layers(outputs, base, _sums(model, {*found, *whole}))


def changed_part(before: Layers, merged: Any) -> str | None:
    """Return the name of the first layer or weight that the merge made another; None if there is none.

    Args:
        before: What `read_layers` returned.
        merged: The model after the merge.
    """
    modules = dict(merged.named_modules())
    for name, trained in before.adapted.items():
        layer, base = modules.get(name), before.base[name]
        weight = merged.get_parameter(name) if layer is None else layer.weight
        output = _product(weight) if layer is None else _output(layer, layer)
        added = trained - base
        tolerance = _ROUNDING.get(str(weight.dtype).removeprefix("torch."), 0.0)
        is_near = (output - trained).norm() <= tolerance * trained.norm()
        share = ((output - base) * added).sum() / added.square().sum().clamp(min=1e-30)
        if not is_near or (added.any() and not abs(share - 1) <= _MOST_MISSING):
            return name
    sums = _sums(merged, set(before.adapted))
    return next((name for name, total in before.rest.items() if sums.get(name) != total), None)


def _output(layer: Any, shaped: Any) -> Tensor:
    """Return what a layer computes from fixed inputs, all in float32.

    Args:
        layer: The layer, with or without an adapter.
        shaped: The linear layer or embedding that has its weight.
    """
    import torch

    weight = shaped.weight
    if isinstance(shaped, torch.nn.Embedding):
        inputs = torch.arange(_ROWS) * (len(weight) - 1) // (_ROWS - 1)
    else:
        width = getattr(shaped, "in_features", weight.shape[0])  # the weight of a Conv1D is turned round
        inputs = torch.randn(_ROWS, width, generator=torch.Generator().manual_seed(0))
    if weight.dtype != torch.float32:
        layer = deepcopy(layer).float()
    with torch.no_grad():
        output: Tensor = layer(inputs.to(weight.device))
    return output


def _product(tensor: Tensor) -> Tensor:
    """Return the product of a tensor's last dimension with a fixed vector, in float32."""
    import torch

    vector = torch.randn(tensor.shape[-1], generator=torch.Generator().manual_seed(0))
    return tensor.detach().float() @ vector.to(tensor.device)


def _sums(model: Any, adapted: set[str]) -> dict[str, float]:
    """Return the sum of each weight outside of the adapted layers, by name."""
    return {
        name: float(weight.detach().double().sum())
        for name, weight in model.named_parameters(remove_duplicate=False)
        if not any(name.startswith(f"{layer}.") for layer in adapted)
    }
