"""Check at the start that what is served is what the gate file describes.

A name belongs to the gate file if it is an adapter whose files have the gate file's hashes, or merged weights that
`presafe export --merge` wrote from that adapter and that were not changed since.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from presafe_vllm.gating.gate_file import Gate, GateError, Mode, problem_of_files
from presafe_vllm.settings import RUN_VARIABLE, Settings

EXPORT_RECORD = "presafe_export.json"
"""File in a folder of merged weights: hashes of what it was made from, and of what it holds."""


def served_modes(state: Any, settings: Settings) -> dict[str, Mode]:
    """Return the mode of each name that may be asked.

    Args:
        state: State of vLLM's application.
        settings: What the operator has set.

    Raises:
        GateError: the gate does not run in the workers; several API servers run; a name is not served; or its weights
            are not those of the gate file.
    """
    if not list(Path(os.environ[RUN_VARIABLE]).glob("*.ready")):
        raise GateError(
            "the gate does not run in vLLM's workers. Leave speculative decoding out, and let VLLM_PLUGINS, if it is "
            "set, name presafe."
        )
    if (num_servers := getattr(state.args, "api_server_count", None) or 1) > 1:
        raise GateError(f"{num_servers} API servers would write one audit and count apart: set --api-server-count 1.")
    problems = problems_of_names(state.openai_serving_models, settings.gate)
    if not settings.modes:
        modes: dict[str, Mode] = {name: "monitor" for name, problem in problems.items() if problem is None}
        if not modes:
            raise GateError(f"no served name has the gate file's weights: {'; '.join(map(str, problems.values()))}.")
        return modes
    for name, mode in settings.modes.items():
        if name not in problems:
            raise GateError(f"PRESAFE_GATE_MODELS names {name!r}, and vLLM serves {', '.join(problems)}.")
        if mode != "open" and problems[name] is not None:
            raise GateError(f"{name!r} cannot be read by this head: {problems[name]}.")
    return settings.modes


def problems_of_names(models: Any, gate: Gate) -> dict[str, str | None]:
    """Return why each served name does not belong to a gate file; None for names that do.

    Args:
        models: vLLM's `openai_serving_models`.
        gate: The gate file.

    Raises:
        GateError: a file cannot be read.
    """
    problems = {base.name: _problem_of_merged(Path(base.model_path), gate) for base in models.base_model_paths}
    adapters = {name: Path(adapter.lora_path) for name, adapter in models.lora_requests.items()}
    return problems | {name: problem_of_files(folder, gate.adapter_sha256) for name, folder in adapters.items()}


def _problem_of_merged(folder: Path, gate: Gate) -> str | None:
    """Return why a base is not the gate file's adapter merged; None if it is."""
    record = folder / EXPORT_RECORD
    if not record.is_file():
        return f"{folder} is neither an adapter nor merged weights of `presafe export`"
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        made_from, weights = dict(content["adapter_sha256"]), dict(content["weights_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GateError(f"{record} cannot be read: {error!r}.") from error
    if made_from != gate.adapter_sha256:
        return f"{folder} was merged from another adapter"
    names = {path.name for path in folder.glob("*.safetensors")}
    if not weights or names != set(weights):
        return f"{folder} holds other files of weights than `presafe export` wrote"
    return problem_of_files(folder, weights)
