"""The decision before the CoT: the auxiliary head after training, and the model's own odds of starting a refusal.

`states_at` and `read_states` say which hidden state a head reads. Training and measuring both read through them. The
head is a monitor beside any server. The odds need no head: ln P(r) − ln(1 − P(r)), with r what a refusal starts with
(ours).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from presafe.errors import ModelError
from presafe.methods.method import Position
from presafe.models.checks import first_line, need_finite, need_places

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
        ModelError: there is none, its file cannot be read, or it holds no weights (1, hidden size) and bias (1) of
            finite numbers.
    """

    def __init__(self, folder: Path) -> None:
        if not has_head(folder):
            raise ModelError(
                f"{folder} holds no {HEAD}.safetensors.", "Name the folder of a system that was aligned with λ > 0."
            )
        broken = "Copy it again, or align again."
        try:
            with safe_open(str(folder / f"{HEAD}.safetensors"), framework="pt") as file:
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no dict
                declared = file.metadata() or {}  # an older presafe wrote none, and knew the defaults alone
        except (OSError, SafetensorError) as error:
            raise ModelError(f"the head in {folder} cannot be read: {first_line(error)}.", broken) from error
        what = f"the head in {folder}"
        width = weights["weight"].shape[-1] if "weight" in weights and weights["weight"].dim() else 1
        need_places(weights, {"weight": torch.empty(1, width), "bias": torch.empty(1)}, what, broken)
        need_finite(weights.items(), what, "Its training has diverged: align again.")
        self.weight, self.bias = weights["weight"].float(), weights["bias"].float()
        position, layer = declared.get("position", "prompt_end"), declared.get("layer")
        if position not in get_args(Position) or not (layer is None or re.fullmatch("[1-9][0-9]{0,5}", layer)):
            raise ModelError(f"{what} reads at position {position!r} and layer {layer}, which are not known.", broken)
        self.position = cast(Position, position)
        self.layer = None if layer is None else int(layer)

    def need_fit(self, model: Any) -> None:
        """Check that a model has the states that the head reads.

        Raises:
            ModelError: its hidden states have another size, or it has fewer layers.
        """
        config = model.config.get_text_config()
        self._need_width(config.hidden_size)
        if self.layer is not None and self.layer > config.num_hidden_layers:
            raise ModelError(
                f"the head reads after layer {self.layer}, and the model has {config.num_hidden_layers} layers.",
                "Name the model that the head was trained on.",
            )

    def _need_width(self, width: int) -> None:
        if width != self.weight.shape[-1]:
            raise ModelError(
                f"the head reads {self.weight.shape[-1]} numbers, the model's hidden state has {width}.",
                "Name the model that the head was trained on.",
            )

    def probability(self, hidden: Tensor) -> Tensor:
        """σ(φ(h)) for hidden states of shape (rows, hidden size).

        Raises:
            ModelError: the head was trained on a model of another hidden size.
        """
        self._need_width(hidden.shape[-1])
        return torch.sigmoid(hidden.float().cpu() @ self.weight.T + self.bias).squeeze(-1)
