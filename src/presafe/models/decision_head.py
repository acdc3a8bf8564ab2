"""The auxiliary head after training: the decision before the CoT as a monitor beside any server."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from presafe.errors import ModelError

HEAD = "presafe_head"
"""Attribute of the causal language model while it trains, and stem of the exported file."""


class DecisionHead:
    """An exported head as a monitor: hidden state at the decision position → probability of refusal.

    Args:
        folder: Folder that holds `presafe_head.safetensors`.

    Raises:
        ModelError: there is none.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / f"{HEAD}.safetensors"
        if not file.is_file():
            raise ModelError(f"{folder} holds no {file.name}.", "Name the folder of an aligned system in a run.")
        state = load_file(str(file))
        self.weight, self.bias = state["weight"], state["bias"]

    def probability(self, hidden: Tensor) -> Tensor:
        """σ(φ(h)) for hidden states of shape (rows, hidden size)."""
        return torch.sigmoid(hidden.float().cpu() @ self.weight.T + self.bias).squeeze(-1)
