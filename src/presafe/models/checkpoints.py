"""Check what a training resumes from: weights that fill the model, and the optimizer state that belongs to them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from presafe.errors import ModelError
from presafe.models.checks import first_line, need_finite, need_places, read_object, reading
from presafe.runtime.launcher import weights_are_sharded

_MAX_STATE_BYTES = 2**30
"""Largest trainer state that is read; it has one line per step."""


def need_whole_checkpoint(folder: str | None, model: Any) -> None:
    """Check a checkpoint before a trainer loads it: the trainer loads what fits and only warns about the rest.

    Args:
        folder: The checkpoint's folder (`last_checkpoint`); None if there is no checkpoint.
        model: The model to be trained, with or without a PEFT adapter.

    Raises:
        ModelError: its weights or its optimizer state cannot be read, do not fit the model, or are not finite.
    """
    if folder is None or weights_are_sharded():  # shards have files of their own, which their loaders check
        return
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    hint = f"Delete {folder} to resume from an earlier checkpoint, or from the start."
    what = f"the checkpoint in {folder}"
    step = read_object(Path(folder) / "trainer_state.json", _MAX_STATE_BYTES).get("global_step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 1:
        raise ModelError(f"{what} is of step {step!r}, which is not a number of steps.", hint)
    adapted = hasattr(model, "peft_config")
    if adapted:
        places = get_peft_model_state_dict(model)
    else:
        tied = getattr(model, "all_tied_weights_keys", {})
        places = {name: value for name, value in model.state_dict().items() if name not in tied}

    def failed(error: Exception) -> ModelError:
        return ModelError(f"{what} cannot be read: {first_line(error)}.", hint)

    file = Path(folder) / ("adapter_model.safetensors" if adapted else "model.safetensors")
    weights = reading(lambda: load_file(file), failed)
    need_places(weights, places, what, hint)
    need_finite(weights.items(), what, hint)
    _need_optimizer(Path(folder) / "optimizer.pt", model, what, hint, failed)


def _need_optimizer(file: Path, model: Any, what: str, hint: str, failed: Any) -> None:
    """Check that an optimizer's state belongs to the model's trainable parameters and is finite."""
    import torch

    content = reading(lambda: torch.load(file, map_location="cpu", weights_only=True), failed)
    states = content.get("state") if isinstance(content, dict) else None
    if not isinstance(states, dict) or not all(isinstance(state, dict) for state in states.values()):
        raise ModelError(f"{what} has no optimizer state in {file.name}.", hint)
    named = [
        (f"{file.name}, {key} of parameter {number}", value)
        for number, state in states.items()
        for key, value in state.items()
        if torch.is_tensor(value)
    ]
    need_finite(named, what, hint)
    own = Counter(tuple(parameter.shape) for parameter in model.parameters() if parameter.requires_grad)
    averages = Counter(tuple(state["exp_avg"].shape) for state in states.values() if "exp_avg" in state)
    if averages and averages != own:
        raise ModelError(f"{what} has the optimizer state of other parameters than the model's.", hint)
