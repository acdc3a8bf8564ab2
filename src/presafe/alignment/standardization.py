"""Standardize what the auxiliary head reads: x = (h − μ) / σ, with μ and σ of the training rows before the first step.

States after the final norm share a large mean: on SmolLM2-135M its norm is 43 of 46 (ours). A head that reads h raw
spends its steps on that mean, and hardly turns from where it started. The statistics are measured once, by a pass over
the prompts of the training rows, and are kept with the head: beside its checkpoints, and folded into its exported
weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import TrainerCallback

from presafe.alignment.head import standardize_head
from presafe.errors import RunError

if TYPE_CHECKING:
    from presafe.alignment.trainer import PreSafeTrainer

_STATISTICS = "head_statistics.safetensors"
"""File of μ and σ, beside the checkpoints."""
_MOST_ROWS = 1024
"""Distinct rows whose states are measured: enough for a mean and a standard deviation of each unit."""
_BATCH_SIZE = 32
"""Rows per forward pass; only prompts are read, without gradients."""
_LEAST_SHARE = 0.01
"""Least σ of a unit, as a share of the mean σ, so that a unit that hardly varies is not blown up."""


class FirstPass(TrainerCallback):
    """Standardizes the head before the first step, or as it was before a resumed training's first step."""

    def __init__(self, trainer: PreSafeTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Standardize the head, once all wrappers of the model are in place.

        Raises:
            RunError: a training is resumed, and its statistics cannot be read.
        """
        file = Path(args.output_dir) / _STATISTICS
        if state.global_step:
            try:
                statistics = load_file(str(file))
                standardize_head(self._trainer.model, statistics["mean"], statistics["deviation"])
            except (OSError, KeyError, RuntimeError, SafetensorError) as error:
                hint = f"Delete the checkpoints in {args.output_dir} to train from the start."
                raise RunError(f"{file}, with which the head was trained, cannot be read.", hint) from error
            return
        states = self._trainer.states_of_prompts()
        if states is None:
            return
        mean, deviation = mean_and_deviation(states)
        standardize_head(self._trainer.model, mean, deviation)
        if state.is_world_process_zero:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file({"mean": mean.cpu(), "deviation": deviation.cpu()}, str(file))


def mean_and_deviation(
    states: Float[Tensor, "rows hidden"],
) -> tuple[Float[Tensor, " hidden"], Float[Tensor, " hidden"]]:
    """Return μ and σ of each unit; σ is at least a hundredth of the mean σ, and 1 where nothing varies.

    Args:
        states: The states that the head reads, at least one.
    """
    deviation = states.std(0, correction=0)
    average = deviation.mean()
    deviation = deviation.clamp(min=float(average) * _LEAST_SHARE) if average > 0 else torch.ones_like(deviation)
    return states.mean(0), deviation


def prompts_in_batches(rows: Any, reads_thought: bool) -> list[list[dict[str, Any]]]:
    """Return the distinct rows with a p′, each cut after the last token that the head reads, in batches.

    Args:
        rows: Training rows, as `PreSafeCollator` reads them.
        reads_thought: Whether the head reads the thought's first token.
    """
    distinct: dict[tuple[int, ...], dict[str, Any]] = {}
    for row in rows:
        if row["signal"] is None:
            continue
        last = row["thought_index"] if reads_thought else row["decision_index"]
        ids = tuple(row["input_ids"][: last + 1])
        distinct.setdefault(ids, {**row, "input_ids": list(ids)})
        if len(distinct) == _MOST_ROWS:
            break
    unique_rows = list(distinct.values())
    return [unique_rows[start : start + _BATCH_SIZE] for start in range(0, len(unique_rows), _BATCH_SIZE)]


def padded_inputs(rows: list[dict[str, Any]], pad: int, device: Any) -> dict[str, Tensor]:
    """Return rows as token ids and mask, padded on the right."""
    sequences = [torch.tensor(row["input_ids"]) for row in rows]
    ids = pad_sequence(sequences, batch_first=True, padding_value=pad)
    mask = pad_sequence([torch.ones_like(sequence) for sequence in sequences], batch_first=True)
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
