"""Write an adapter that `peft` and vLLM load like any other, without a trace of the auxiliary head."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from presafe.models.adapters import need_adapter
from presafe.models.checks import need_places
from presafe.models.decision_head import HEAD
from presafe.runs.io import disk_error


def export_adapter(
    model: Any,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    base_model: str | None = None,
    state: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a PEFT model's adapter: `adapter_model.safetensors` and `adapter_config.json`.

    vLLM refuses adapters with `modules_to_save`, so the head's weights and its name are taken out. So are the base's
    own weights, which PEFT adds where a target is the embedding or the output layer, unchanged.

    Args:
        model: The PEFT model that was trained.
        folder: Where to write; other files in it are kept.
        dtype: Type of the written weights.
        base_model: Address written as the adapter's base; None writes where the base was loaded from.
        state: The model's whole weights by name, if its own parameters are shards (`whole_weights`).

    Raises:
        RunError: the folder cannot be written.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        model.save_pretrained(str(part), state_dict=state)
        weights = load_file(str(part / "adapter_model.safetensors"))
        config = json.loads((part / "adapter_config.json").read_text(encoding="utf-8"))
        config["modules_to_save"] = [name for name in config["modules_to_save"] or [] if name != HEAD] or None
        if not isinstance(config["target_modules"], str):  # a pattern stays one; "all-linear" has listed the head
            config["target_modules"] = sorted(name for name in config["target_modules"] if name != HEAD)
        config["base_model_name_or_path"] = base_model or config["base_model_name_or_path"]
        # Two adapters on the experts' tensors lie one in the other, so that one is in a base layer, too.
        kept = {
            name: value.to(dtype)
            for name, value in weights.items()
            if HEAD not in name and (".base_layer." not in name or ".lora_" in name)
        }
        folder.mkdir(parents=True, exist_ok=True)
        save_file(kept, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
        (folder / "adapter_model.safetensors").chmod(0o644)  # safetensors writes for the owner alone
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise disk_error(folder, error) from error
    except SafetensorError as error:  # wraps the system's error, in words
        raise disk_error(folder, OSError(str(error))) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def whole_weights(trainer: Any) -> dict[str, torch.Tensor] | None:
    """Gather weights that FSDP or ZeRO has sharded, on the first process; return None if nothing is sharded.

    Every process must call it.
    """
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return None
    state: dict[str, torch.Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return state


def load_adapter(model: Any, folder: Path) -> None:
    """Load the weights of an exported adapter of the same shape into a PEFT model, to train them further.

    Args:
        model: The PEFT model; its head keeps its own weights.
        folder: Folder of the adapter.

    Raises:
        ModelError: the adapter cannot be read or is not finite, has weights that the model lacks or of another shape,
            or lacks some of the model's.
    """
    need_adapter(folder)
    weights = load_file(str(folder / "adapter_model.safetensors"))
    # peft's own loader would miss the head, which an exported adapter does not hold.
    own = {name.replace(".weight", ".default.weight"): value for name, value in weights.items()}
    places = {name: value for name, value in model.state_dict().items() if ".lora_" in name and HEAD not in name}
    need_places(own, places, f"the adapter in {folder}")
    model.load_state_dict(own, strict=False)
