"""The decision before the CoT: the auxiliary head after training, and the model's own odds of starting a refusal.

`states_at` and `read_states` say which hidden state a head reads. Training and measuring both read through them. The
head is a monitor beside any server. The odds need no head: ln P(r) − ln(1 − P(r)), with r what a refusal starts with
(ours).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from presafe.errors import ModelError
from presafe.methods.method import Position

HEAD = "presafe_head"
"""Attribute of the causal language model while it trains, and stem of the exported file."""


class RefusalStart(NamedTuple):
    """What a system's refusals start with, once the thought is open: some tokens that all share, then one of a few."""

    shared: tuple[int, ...]
    """Those that close the thought at once, or the refusals' own thought but for the last token that they share."""
    words: frozenset[int]
    """Tokens of which the next is one."""

    @property
    def links(self) -> list[tuple[int, ...]]:
        """Which tokens may follow, step by step."""
        return [*((token,) for token in self.shared), tuple(sorted(self.words))]


def has_head(folder: Path) -> bool:
    """Whether an aligned system has a head; trained with λ = 0 it has none."""
    return (folder / f"{HEAD}.safetensors").is_file()


def states_at(output: Any, layer: int | None) -> Float[Tensor, "rows positions hidden"]:
    """The hidden states after a block.

    Args:
        output: Of a decoder; with a layer, one that was asked for its hidden states.
        layer: Counted from 1; the last one, and None, is after the final norm.
    """
    states: Tensor = output.last_hidden_state if layer is None else output.hidden_states[layer]
    return states


def read_states(
    states: Float[Tensor, "rows positions hidden"],
    position: Position,
    decision: Int[Tensor, " rows"],
    thought: Int[Tensor, " rows"] | None = None,
) -> Float[Tensor, "rows hidden"]:
    """What a head reads of each row, in float32.

    Args:
        states: Hidden states, padded on the right.
        position: Where it reads.
        decision: Index of the last prompt token; a mean is over the prompt up to it.
        thought: Index of the CoT's first token; only for "thought_start".
    """
    if position == "prompt_mean":
        kept = torch.arange(states.shape[1], device=states.device)[None] <= decision[:, None]
        return (states.float() * kept[..., None]).sum(1) / kept.sum(-1, keepdim=True)
    where = decision if position == "prompt_end" else thought
    assert where is not None
    return states[torch.arange(len(states), device=states.device), where].float()


def start_log_odds(
    logits: Float[Tensor, "rows vocabulary"], tokens: int | Sequence[int], against: int | None = None
) -> Float[Tensor, " rows"]:
    """ln P − ln(1 − P), P the probability of one of some tokens, without forming it, which would saturate.

    Args:
        logits: Output of the language-model head, at the position before the token.
        tokens: Id of the token, or ids of several.
        against: Id of another one: ln P(token) − ln P(against) for a single token; None is all others.
    """
    among = [tokens] if isinstance(tokens, int) else list(tokens)
    own = logits[:, among].logsumexp(-1)
    if against is not None:
        return own - logits[:, against]
    others = logits.clone()
    others[:, among] = -torch.inf
    return own - others.logsumexp(-1)


class DecisionHead:
    """An exported head as a monitor: hidden state at the decision position → probability of refusal.

    `position` and `layer` say where it reads, as it did in training (`read_states`).

    Args:
        folder: Folder that holds `presafe_head.safetensors`.

    Raises:
        ModelError: there is none, or its file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        if not has_head(folder):
            raise ModelError(
                f"{folder} holds no {HEAD}.safetensors.", "Name the folder of a system that was aligned with λ > 0."
            )
        try:
            with safe_open(str(folder / f"{HEAD}.safetensors"), framework="pt") as file:
                self.weight, self.bias = file.get_tensor("weight"), file.get_tensor("bias")
                said = file.metadata() or {}  # an older presafe wrote none, and knew the defaults alone
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"the head in {folder} cannot be read: {str(error).splitlines()[0]}.", "Copy it again, or align again."
            ) from error
        self.position = cast(Position, said.get("position", "prompt_end"))
        self.layer = int(said["layer"]) if "layer" in said else None

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
