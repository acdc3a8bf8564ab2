"""Commands that launch a recipe: accelerate for training, vLLM for sampling, judging and serving.

vLLM's constraints on an adapter, from its documentation (`LoRAConfig` and `PEFTHelper`): its rank is at most
`--max-lora-rank`, which accepts certain values only; it has no `modules_to_save`, no bias and no DoRA; its targets are
linear layers of the model.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from presafe.config.recipe import Recipe
from presafe.methods.registry import trained
from presafe.models.address import MADE
from presafe.planning.estimate import GIB, Launcher, Plan

MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM's `--max-lora-rank` accepts (its `MaxLoRARanks`)."""
_PROMPT_ROOM = 1024
"""Tokens that a server reserves for a prompt, in addition to the answer."""


def launcher_file(launcher: Launcher) -> Path:
    """Return the path of the shipped accelerate configuration for a launcher."""
    return Path(str(resources.files("presafe") / "launchers" / f"{launcher}.yaml"))


def max_lora_rank(rank: int) -> int | None:
    """Return the smallest `--max-lora-rank` that holds an adapter of this rank, or None if the rank is too large."""
    return next((allowed for allowed in MAX_LORA_RANKS if allowed >= rank), None)


def training_commands(recipe: str, launcher: Launcher, num_gpus: int, engine: Sequence[str] = ()) -> list[str]:
    """Return shell lines that run a recipe, with its training on `num_gpus` GPUs.

    Args:
        recipe: File or name of the recipe.
        launcher: What starts the processes of a training.
        num_gpus: Number of GPUs that train together.
        engine: Words of `--engine`: where the run samples, if not as the recipe says.
    """
    run = shlex.join(["run", recipe, *(word for words in engine for word in ("--engine", words))])
    if num_gpus == 1:
        return [f"presafe {run}"]
    return [
        f"presafe {run} --until signal",
        f"accelerate launch --config_file {launcher_file(launcher)} --num_processes {num_gpus} "
        f"-m presafe.cli.main {run} --until align",
        f"presafe {run}",
    ]


def serving_commands(recipe: Recipe, folder: str, num_gpus: int, split: int) -> list[str]:
    """Return shell lines that serve a recipe's model, and then its adapters, through vLLM.

    Args:
        recipe: The recipe.
        folder: Its run folder.
        num_gpus: Number of GPUs of the server.
        split: Number of GPUs over which one copy of the model is split.
    """
    address = recipe.model.address
    if address in MADE:  # it is an adapter itself, and is merged into a folder before it is served
        address = f"{address}-merged"
    length = max(recipe.respond.max_tokens, recipe.evaluate.max_tokens) + _PROMPT_ROOM
    common = f"vllm serve {address} --dtype {recipe.model.dtype} --max-model-len {length}"
    if split > 1:
        common += f" --tensor-parallel-size {split}"
    if num_gpus // split > 1:
        common += f" --data-parallel-size {num_gpus // split}"
    lines = [f"{common} --port 8000"]
    rank = max_lora_rank(recipe.align.lora_rank)
    if rank is not None:
        adapters = " ".join(f"{name}={folder}/alignment/{name}/adapter" for name in trained(recipe.align.systems))
        lines.append(f"{common} --port 8000 --enable-lora --max-lora-rank {rank} --lora-modules {adapters}")
    return lines


def tensor_parallel_size(plan: Plan, memory_gib: float, num_gpus: int) -> int:
    """Return the GPUs per copy of the model, a power of two, so that its weights fill at most half of each."""
    split = 1
    while split < num_gpus and plan.memory.sampling.weights / split / GIB > memory_gib / 2:
        split *= 2
    return split
