"""`presafe plan`: estimate a recipe before it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from presafe.cli import options
from presafe.cli.output import AsJson, print_json
from presafe.errors import RecipeError

if TYPE_CHECKING:
    from presafe.config.recipe import Recipe
    from presafe.planning.compute import TrainingBytes
    from presafe.planning.devices import Device
    from presafe.planning.estimate import Launcher, Memory, Plan, SamplingBytes

_LAUNCHERS = ("ddp", "fsdp2", "zero2", "zero3")


def plan(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A .toml file, or the name of a shipped recipe.")],
    device: Annotated[str, typer.Option("--device", help="GPU; a wrong name lists the known ones.")] = "h100-80gb",
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="GPUs that train together.")] = 1,
    launcher: Annotated[str, typer.Option("--launcher", help="ddp, fsdp2, zero2 or zero3.")] = "ddp",
    engine: options.Engine = None,
    as_json: AsJson = False,
) -> None:
    """Estimate memory, tokens and GPU-hours of a recipe, and say how to launch it."""
    from presafe.config.recipe import load_recipe
    from presafe.workflows.plan import plan_recipe

    if launcher not in _LAUNCHERS:
        raise RecipeError(f"no launcher {launcher!r}.", f"There are: {', '.join(_LAUNCHERS)}.")
    chosen = cast("Launcher", launcher)
    settings = options.sampled_at(load_recipe(recipe), engine)
    estimate = plan_recipe(settings, device, gpus, chosen)
    summary = _summary(recipe, settings, estimate, device, gpus, chosen, engine or [])
    if as_json:
        print_json(summary)
    else:
        print(_as_text(summary))


def _summary(
    name: str, recipe: Recipe, estimate: Plan, device: str, gpus: int, launcher: Launcher, engine: list[str]
) -> dict[str, Any]:
    """Return the plan as JSON data."""
    from presafe.planning.commands import serving_commands, tensor_parallel_size, training_commands
    from presafe.planning.devices import assumptions, find_device
    from presafe.workflows.plan import vllm_starts

    memory, gpu = estimate.memory, find_device(device)
    split = tensor_parallel_size(estimate, gpu.memory_gib, gpus)
    return {
        "recipe": recipe.name,
        "model": recipe.model.address,
        "teacher": recipe.respond.teacher and recipe.respond.teacher.address,
        "device": device,
        "gpus": gpus,
        "launcher": launcher if gpus > 1 else None,
        "parameters": estimate.num_parameters,
        "adapter_parameters": estimate.num_adapter_parameters,
        "memory_gib": {
            "training": _memory_use(memory, memory.training, gpu),
            "sampling": _memory_use(memory, memory.sampling, gpu),
            "teacher": memory.teacher and _memory_use(memory, memory.teacher, gpu),
        },
        "sampling": [cost._asdict() for cost in estimate.decoding],
        "training": estimate.training._asdict(),
        "gpu_hours": round(estimate.gpu_hours(), 2),
        "elapsed_hours": round(estimate.elapsed_hours, 2),
        "engine": recipe.engine and recipe.engine.model_dump(mode="json", exclude_defaults=True),
        "vllm_starts": vllm_starts(recipe),
        "assumptions": {**gpu.model_dump(), **assumptions().model_dump()},
        "commands": {
            "train": training_commands(name, launcher, gpus, engine),
            "serve": serving_commands(recipe, f"runs/{options.short_name(name)}", gpus, split),
        },
    }


def _memory_use(memory: Memory, use: TrainingBytes | SamplingBytes, gpu: Device) -> dict[str, Any]:
    """Return a memory estimate in GiB, its total, and whether it fits the GPU."""
    from presafe.planning.estimate import GIB

    sizes = {name: round(size / GIB, 2) for name, size in use._asdict().items()}
    return sizes | {"total": round(memory.gib(use), 1), "fits": memory.gib(use) <= gpu.memory_gib}


def _as_text(summary: dict[str, Any]) -> str:
    """Return the plan as lines to read."""
    hardware = f"{summary['gpus']} × {summary['device']}"
    if summary["launcher"]:
        hardware += f", {summary['launcher']}"
    teacher = f", taught by {summary['teacher']}" if summary["teacher"] else ""
    lines = [
        f"{summary['recipe']} ({summary['model']}{teacher}) on {hardware}",
        f"parameters      {summary['parameters']:,}, adapter {summary['adapter_parameters']:,}",
        "",
    ]
    lines += _memory_lines(summary["memory_gib"])
    lines.append("")
    lines += _cost_lines(summary)
    lines += [
        "",
        "assumed         " + ", ".join(f"{name} {value:g}" for name, value in summary["assumptions"].items()),
        "",
        "train",
    ]
    lines += [f"  {line}" for line in summary["commands"]["train"]]
    lines.append("sample or judge through vLLM, then serve the adapters")
    lines += [f"  {line}" for line in summary["commands"]["serve"]]
    return "\n".join(lines)


def _memory_lines(memory: dict[str, Any]) -> list[str]:
    """Return the lines on memory per GPU."""
    training = memory["training"]
    lines = [
        "memory per GPU  GiB",
        f"  training      {training['total']:>7.1f}  weights {training['weights']}, adapter with its optimizer "
        f"{training['adapter']}, activations {training['activations']}, reserve{_fit_warning(training)}",
    ]
    for name in ("sampling", "teacher"):
        if use := memory[name]:
            sizes = f"weights {use['weights']}, cache {use['cache']}, reserve{_fit_warning(use)}"
            lines.append(f"  {name:13} {use['total']:>7.1f}  {sizes}")
    return lines


def _cost_lines(summary: dict[str, Any]) -> list[str]:
    """Return the lines on tokens and GPU-hours."""
    lines = [f"{'tokens':64} expected    at most  GPU-hours    at most"]
    for cost in summary["sampling"]:
        what = f"{cost['what']}: {cost['num_prompts']:,} answers" + (" (assumed)" if cost["guessed"] else "")
        lines.append(
            f"  {what:61} {_short(cost['expected_tokens']):>9} {_short(cost['most_tokens']):>10} "
            f"{cost['gpu_hours']:>10.2f} {cost['most_gpu_hours']:>10.2f}"
        )
    training = summary["training"]
    what = f"training: {training['num_trainings']} × {training['num_steps']} steps, {training['num_rows']:,} rows"
    lines.append(f"  {what:61} {_short(training['num_tokens']):>9} {'':10} {training['gpu_hours']:>10.2f}")
    lines.append(f"  {'together':61} {'':9} {'':10} {summary['gpu_hours']:>10.2f}")
    starts = f", and {summary['vllm_starts']} starts of vLLM" if summary["vllm_starts"] else ""
    lines += [
        "",
        f"elapsed         {summary['elapsed_hours']:.2f} hours, the minutes of the classifier{starts} not counted",
    ]
    return lines


def _fit_warning(use: dict[str, Any]) -> str:
    """Return a warning if an estimate does not fit the GPU."""
    return "" if use["fits"] else "; DOES NOT FIT"


def _short(number: float) -> str:
    """Format a number of tokens: "1.2 M", "4,096"."""
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number:,.0f}"
