"""`presafe plan`: what a recipe would take, before anything is spent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from presafe.cli import options
from presafe.errors import RecipeError

if TYPE_CHECKING:
    from presafe.planning.compute import TrainingBytes
    from presafe.planning.devices import Device
    from presafe.planning.estimate import Launcher, Memory, Plan, SamplingBytes
    from presafe.recipe import Recipe

_LAUNCHERS = ("ddp", "fsdp2", "zero2", "zero3")


def plan(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A .toml file, or the name of a shipped recipe.")],
    device: Annotated[
        str, typer.Option("--device", help="GPU; a wrong name lists those that are known.")
    ] = "h100-80gb",
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="GPUs that train together.")] = 1,
    launcher: Annotated[str, typer.Option("--launcher", help="ddp, fsdp2, zero2 or zero3.")] = "ddp",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate memory, tokens and GPU-hours of a recipe, and say how to launch it."""
    from presafe.recipe import load_recipe
    from presafe.stages.plan import plan_recipe

    if launcher not in _LAUNCHERS:
        raise RecipeError(f"no launcher {launcher!r}.", f"There are: {', '.join(_LAUNCHERS)}.")
    chosen = cast("Launcher", launcher)
    settings = load_recipe(recipe)
    found = plan_recipe(settings, device, gpus, chosen)
    said = _as_json(recipe, settings, found, device, gpus, chosen)
    print(json.dumps(said, indent=2) if as_json else _as_text(said))


def _as_json(name: str, recipe: Recipe, found: Plan, device: str, gpus: int, launcher: Launcher) -> dict[str, Any]:
    from presafe.planning.commands import copies_over, serving_commands, training_commands
    from presafe.planning.devices import assumptions, find_device

    memory, gpu = found.memory, find_device(device)
    return {
        "recipe": recipe.name,
        "model": recipe.model.address,
        "teacher": recipe.respond.teacher and recipe.respond.teacher.address,
        "device": device,
        "gpus": gpus,
        "launcher": launcher if gpus > 1 else None,
        "parameters": found.num_parameters,
        "adapter_parameters": found.num_adapter_parameters,
        "memory_gib": {
            "training": _part(memory, memory.training, gpu),
            "sampling": _part(memory, memory.sampling, gpu),
            "teacher": memory.teacher and _part(memory, memory.teacher, gpu),
        },
        "sampling": [each._asdict() for each in found.decoding],
        "training": found.training._asdict(),
        "gpu_hours": round(found.gpu_hours(), 2),
        "assumptions": {**gpu.model_dump(), **assumptions().model_dump()},
        "commands": {
            "train": training_commands(name, launcher, gpus),
            "serve": serving_commands(
                recipe, f"runs/{options.short_name(name)}", gpus, copies_over(found, gpu.memory_gib, gpus)
            ),
        },
    }


def _part(memory: Memory, part: TrainingBytes | SamplingBytes, gpu: Device) -> dict[str, Any]:
    from presafe.planning.estimate import GIB

    sizes = {name: round(size / GIB, 2) for name, size in part._asdict().items()}
    return sizes | {"total": round(memory.gib(part), 1), "fits": memory.gib(part) <= gpu.memory_gib}


def _as_text(said: dict[str, Any]) -> str:
    """The same, to be read."""
    training = said["memory_gib"]["training"]
    answering = {"sampling": said["memory_gib"]["sampling"], "teacher": said["memory_gib"]["teacher"]}
    work = said["training"]
    where = f"{said['gpus']} × {said['device']}" + (f", {said['launcher']}" if said["launcher"] else "")
    teacher = f", taught by {said['teacher']}" if said["teacher"] else ""
    lines = [
        f"{said['recipe']} ({said['model']}{teacher}) on {where}",
        f"parameters      {said['parameters']:,}, adapter {said['adapter_parameters']:,}",
        "",
        "memory a GPU    GiB",
        f"  training      {training['total']:>7.1f}  weights {training['weights']}, adapter with its optimiser "
        f"{training['adapter']}, activations {training['activations']}, reserve{_fits(training)}",
        *(
            f"  {name:13} {part['total']:>7.1f}  weights {part['weights']}, cache {part['cache']}, reserve{_fits(part)}"
            for name, part in answering.items()
            if part
        ),
        "",
        f"{'tokens':64} expected    at most  GPU-hours    at most",
    ]
    for each in said["sampling"]:
        what = f"{each['what']}: {each['num_prompts']:,} answers" + (" (assumed)" if each["guessed"] else "")
        lines.append(
            f"  {what:61} {_short(each['expected_tokens']):>9} {_short(each['most_tokens']):>10} "
            f"{each['gpu_hours']:>10.2f} {each['most_gpu_hours']:>10.2f}"
        )
    what = f"training: {work['num_trainings']} × {work['num_steps']} steps, {work['num_rows']:,} rows"
    lines += [
        f"  {what:61} {_short(work['num_tokens']):>9} {'':10} {work['gpu_hours']:>10.2f}",
        f"  {'together':61} {'':9} {'':10} {said['gpu_hours']:>10.2f}",
        "",
        "assumed         " + ", ".join(f"{name} {value:g}" for name, value in said["assumptions"].items()),
        "",
        "train",
        *(f"  {line}" for line in said["commands"]["train"]),
        "sample or judge through vLLM, then serve the adapters",
        *(f"  {line}" for line in said["commands"]["serve"]),
    ]
    return "\n".join(lines)


def _fits(part: dict[str, Any]) -> str:
    return "" if part["fits"] else "; DOES NOT FIT"


def _short(number: float) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number:,.0f}"
