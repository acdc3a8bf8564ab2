"""Take one direction out of a model's hidden states: the one along which harmful and harmless prompts differ.

    d = mean state of harmful prompts − mean state of harmless prompts     at the decision position, after one block
    h ← h − (h·d̂) d̂                                                        after every block, at every position

If the refusal depends on this direction alone, a model without it no longer refuses. No weights change.

Source: Arditi et al., arXiv 2406.11717, sections 2.3 and 2.4. Theirs chooses block and position by a search; ours takes
the decision position, and the block is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from presafe.errors import ModelError
from presafe.internals.states import hidden_states
from presafe.models.loading import LoadedModel

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def refusal_direction(
    loaded: LoadedModel, harmful: Sequence[str], harmless: Sequence[str], layer: int
) -> Float[Tensor, " hidden"]:
    """Return the direction from harmless to harmful prompts at the decision position, of length 1.

    Args:
        loaded: The model.
        harmful: Prompts to refuse; at least one.
        harmless: Prompts to comply with; at least one.
        layer: Block after which the states are read, counted from 1; not the last, whose states are after the norm.

    Raises:
        ModelError: there is no such block, or both means are the same.
    """
    import torch

    num_layers = loaded.model.config.get_text_config().num_hidden_layers
    if not 1 <= layer < num_layers:
        raise ModelError(
            f"no direction is read after block {layer} of {num_layers}.", f"Set `layer` from 1 to {num_layers - 1}."
        )
    states = torch.from_numpy(hidden_states(loaded, [*harmful, *harmless], "on")[:, layer - 1])
    direction = states[: len(harmful)].mean(0) - states[len(harmful) :].mean(0)
    if not (length := float(direction.norm())):
        raise ModelError("harmful and harmless prompts have the same states there.", "Set another `layer`.")
    return direction / length


@contextmanager
def ablated(model: Any, direction: Float[Tensor, " hidden"]) -> Iterator[None]:
    """Take a direction out of the states after every block, at every position, for a while.

    Args:
        model: The causal language model.
        direction: Of length 1.

    Raises:
        ModelError: the model's blocks are not found.
    """

    def without(_module: Any, _inputs: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        unit = direction.to(states)
        changed = states - (states @ unit)[..., None] * unit
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handles = [block.register_forward_hook(without) for block in _blocks(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _blocks(model: Any) -> list[Any]:
    """Return the decoder's blocks.

    Raises:
        ModelError: there is no list of as many modules as the config has blocks.
    """
    from torch.nn import ModuleList

    num_layers = model.config.get_text_config().num_hidden_layers
    lists = [module for module in model.modules() if isinstance(module, ModuleList) and len(module) == num_layers]
    if not lists:
        raise ModelError("the model's blocks are not found, so nothing can be taken out of their states.")
    return list(lists[0])
