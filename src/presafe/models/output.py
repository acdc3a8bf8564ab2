"""The logits of hidden states, where a model's own forward pass does not compute them at the positions that are wanted.

Most models take the output layer's product as it is. Granite divides it by a number of its config, Muse multiplies it
by one, and Gemma and Muse cap it. What another kind of model might do is not known, so `need_own_logits` compares once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presafe.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

_CLOSE = 1e-3
"""Largest difference of two logits, relative to the largest one, that rounding explains, also in bfloat16. Ours."""


def logits_of(model: Any, states: Tensor) -> Tensor:
    """Return the logits of hidden states after the last layer.

    Args:
        model: The causal language model.
        states: Of shape (..., hidden size), as the decoder returns them.

    Returns:
        Of shape (..., vocabulary).
    """
    logits: Tensor = model.get_output_embeddings()(states)
    config = model.config.get_text_config()
    divisor, factor = getattr(config, "logits_scaling", None), getattr(config, "output_multiplier", None)
    cap = getattr(config, "final_logit_softcapping", None)
    if divisor is not None:
        logits = logits / divisor
    if factor is not None:
        logits = logits * factor
    return logits if cap is None else (logits / cap).tanh() * cap


def need_own_logits(model: Any) -> None:
    """Check on four tokens that `logits_of` gives the logits of the model's own forward pass.

    Args:
        model: The causal language model.

    Raises:
        ModelError: it does not, so that what is read from hidden states would be of another model.
    """
    import torch

    rows = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(4, device=model.device)[None] % rows  # several: the embedding of a padding token is 0
    with torch.inference_mode():
        states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        own = model(input_ids=ids, use_cache=False).logits.float()
        difference = (logits_of(model, states).float() - own).abs().max()
    if difference > _CLOSE * own.abs().max():
        kind = type(model).__name__
        raise ModelError(
            f"a {kind} changes its logits after the output layer in a way that presafe does not know.",
            "Measure it by sampling; the decision position and the training need these logits.",
        )
