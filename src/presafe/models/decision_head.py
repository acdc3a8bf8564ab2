"""Read the decision before the CoT: the auxiliary head after training, or the model's own odds of starting a refusal.

`states_at` and `read_states` select the hidden state that a head reads; training and measuring both use them. The head
can monitor prompts beside any server. The odds need no head: ln P(r) − ln(1 − P(r)), where r is what a refusal starts
with (ours).
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
"""Attribute of the causal language model during training, and stem of the exported file."""


class RefusalStart(NamedTuple):
    """What a system's refusals start with after the thought is open: shared tokens, then one of a few tokens."""

    shared: tuple[int, ...]
    """Ids that every refusal starts with: those that close the thought at once, or those of the refusals' own thought
    without the last token that they share."""
    token_ids: frozenset[int]
    """Ids of the tokens that can follow: the next token of a refusal is one of them."""

    @property
    def links(self) -> list[tuple[int, ...]]:
        """Return the ids that can follow, step by step."""
        return [*((token,) for token in self.shared), tuple(sorted(self.token_ids))]


def has_head(folder: Path) -> bool:
    """Return whether an aligned system has a head; a system trained with λ = 0 has none."""
    return (folder / f"{HEAD}.safetensors").is_file()


def states_at(output: Any, layer: int | None) -> Float[Tensor, "rows positions hidden"]:
    """Return the hidden states after a block.

    Args:
        output: Output of a decoder; if `layer` is given, with its hidden states.
        layer: Block, counted from 1; the last block and None are read after the final norm.
    """
    states: Tensor = output.last_hidden_state if layer is None else output.hidden_states[layer]
    return states


def read_states(
    states: Float[Tensor, "rows positions hidden"],
    position: Position,
    decision: Int[Tensor, " rows"],
    thought: Int[Tensor, " rows"] | None = None,
) -> Float[Tensor, "rows hidden"]:
    """Return the hidden state that a head reads in each row, in float32.

    Args:
        states: Hidden states, padded on the right.
        position: Where the head reads.
        decision: Index of the last prompt token; the mean is over the prompt up to it.
        thought: Index of the CoT's first token; needed for "thought_start".

    Raises:
        ValueError: "thought_start" without `thought`.
    """
    if position == "prompt_mean":
        kept = torch.arange(states.shape[1], device=states.device)[None] <= decision[:, None]
        return (states.float() * kept[..., None]).sum(1) / kept.sum(-1, keepdim=True)
    index = decision if position == "prompt_end" else thought
    if index is None:
        raise ValueError(f"position {position!r} needs the index of the CoT's first token")
    return states[torch.arange(len(states), device=states.device), index].float()


def start_log_odds(
    logits: Float[Tensor, "rows vocabulary"], tokens: int | Sequence[int], against: int | None = None
) -> Float[Tensor, " rows"]:
    """Return ln P − ln(1 − P), with P the probability of one of some tokens; P itself would saturate.

    Args:
        logits: Output of the language-model head, at the position before the token.
        tokens: Id of the token, or ids of several.
        against: Id of another token, for ln P(tokens) − ln P(against); None compares with all other tokens.
    """
    token_ids = [tokens] if isinstance(tokens, int) else list(tokens)
    own = logits[:, token_ids].logsumexp(-1)
    if against is not None:
        return own - logits[:, against]
    others = logits.clone()
    others[:, token_ids] = -torch.inf
    return own - others.logsumexp(-1)


class DecisionHead:
    """An exported head as a monitor: hidden state at the decision position → probability of refusal.

    It reads at `position` and `layer`, as in training (`read_states`).

    Args:
        folder: Folder with `presafe_head.safetensors`.

    Raises:
        ModelError: there is no head, its file cannot be read, or it does not hold weights (1, hidden size) and a bias
            (1) of finite numbers.
    """

    def __init__(self, folder: Path) -> None:
        if not has_head(folder):
            raise ModelError(
                f"{folder} has no {HEAD}.safetensors.", "Name the folder of a system that was aligned with λ > 0."
            )
        broken = "Copy it again, or align again."
        try:
            with safe_open(str(folder / f"{HEAD}.safetensors"), framework="pt") as file:
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no dict
                declared = file.metadata() or {}  # an older presafe wrote none, and had only the defaults
        except (OSError, SafetensorError) as error:
            raise ModelError(f"the head in {folder} cannot be read: {first_line(error)}.", broken) from error
        what = f"the head in {folder}"
        width = weights["weight"].shape[-1] if "weight" in weights and weights["weight"].dim() else 1
        need_places(weights, {"weight": torch.empty(1, width), "bias": torch.empty(1)}, what, broken)
        need_finite(weights.items(), what, "Its training has diverged: align again.")
        self.weight, self.bias = weights["weight"].float(), weights["bias"].float()
        position, layer = declared.get("position", "prompt_end"), declared.get("layer")
        if position not in get_args(Position) or not (layer is None or re.fullmatch("[1-9][0-9]{0,5}", layer)):
            raise ModelError(f"{what} reads at an unknown position {position!r} or layer {layer}.", broken)
        self.position = cast(Position, position)
        self.layer = None if layer is None else int(layer)

    def need_fit(self, model: Any) -> None:
        """Check that a model has the hidden states that the head reads.

        Args:
            model: The causal language model.

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

    def logit(self, hidden: Float[Tensor, "rows hidden"]) -> Float[Tensor, " rows"]:
        """Return φ(h), the log-odds of refusal, on the device of the states.

        Raises:
            ModelError: the head was trained on a model of another hidden size.
        """
        self._need_width(hidden.shape[-1])
        weight, bias = self.weight.to(hidden.device), self.bias.to(hidden.device)
        logits: Tensor = (hidden.float() @ weight.T + bias).squeeze(-1)
        return logits

    def probability(self, hidden: Tensor) -> Tensor:
        """Return σ(φ(h)), the probability of refusal (paper, section 4); hidden states have shape (rows, hidden size).

        Raises:
            ModelError: as `logit`.
        """
        return torch.sigmoid(self.logit(hidden.cpu()))


class DecisionReading(NamedTuple):
    """How a system's decision before the CoT is read."""

    start: RefusalStart
    head: DecisionHead | None = None
