"""The decision before the CoT: the auxiliary head after training, and the model's own odds of starting a refusal.

The head is a monitor beside any server. The odds need no head: ln P(r) − ln(1 − P(r)), with r the token that a refusal
starts with (ours).
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from presafe.errors import ModelError

HEAD = "presafe_head"
"""Attribute of the causal language model while it trains, and stem of the exported file."""


def has_head(folder: Path) -> bool:
    """Whether an aligned system has a head; trained with λ = 0 it has none."""
    return (folder / f"{HEAD}.safetensors").is_file()


def start_log_odds(
    logits: Float[Tensor, "rows vocabulary"], token: int, against: int | None = None
) -> Float[Tensor, " rows"]:
    """ln P(token) − ln(1 − P(token)) without forming P, which would saturate; or − ln P(against).

    Args:
        logits: Output of the language-model head, at the position before the token.
        token: Id of the token.
        against: Id of another; None is all others.
    """
    if against is not None:
        return logits[:, token] - logits[:, against]
    others = logits.clone()
    others[:, token] = -torch.inf
    return logits[:, token] - others.logsumexp(-1)


class DecisionHead:
    """An exported head as a monitor: hidden state at the decision position → probability of refusal.

    Args:
        folder: Folder that holds `presafe_head.safetensors`.

    Raises:
        ModelError: there is none.
    """

    def __init__(self, folder: Path) -> None:
        if not has_head(folder):
            raise ModelError(
                f"{folder} holds no {HEAD}.safetensors.", "Name the folder of a system that was aligned with λ > 0."
            )
        state = load_file(str(folder / f"{HEAD}.safetensors"))
        self.weight, self.bias = state["weight"], state["bias"]

    def probability(self, hidden: Tensor) -> Tensor:
        """σ(φ(h)) for hidden states of shape (rows, hidden size).

        Raises:
            ModelError: the head was trained on a model of another hidden size.
        """
        if hidden.shape[-1] != self.weight.shape[-1]:
            raise ModelError(
                f"the head reads {self.weight.shape[-1]} numbers, the model's hidden state has {hidden.shape[-1]}.",
                "Name the model that the head was trained on.",
            )
        return torch.sigmoid(hidden.float().cpu() @ self.weight.T + self.bias).squeeze(-1)
