"""`presafe gate check` against real servers: other types of the weights, a quantization, and weights that are rounded.

    PRESAFE_VLLM=.venv-vllm python benchmarks/gate_check.py RUN --work FOLDER

RUN is a run of the demo's recipe with a gate file. Its head is exported as a classifier, and vLLM serves it once for
each side; `gate check` compares p of all queries of the calibration. The sides, written before the first check:

float32, bfloat16    the exported classifier, in vLLM's `--dtype`
int8                 weights of the linear layers in int8, one scale a row, activations quantized for each token: vLLM's
                     own kernels (compressed-tensors, "int-quantized")
4, 3, 2 bits         the same weights rounded to so many bits, one scale a row, and computed in bfloat16: what rounding
                     alone does, without a kernel of vLLM
another model        the base without the adapter, under the same head
adapter at 0.8       the adapter with 0.8 of its scale, under the same head; added when the others had been read, as
                     none of them moved p and kept its ranking

The record is benchmarks/results/gate_check.json; a side that is in it already is not served again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sides import say, vllm_environment

from presafe.config.engine import EngineSettings
from presafe.models.loading import load_model
from presafe.models.vllm import StartedServer, Weights
from presafe.runs.io import read_json, write_json
from presafe.runs.manifest import build_manifest
from presafe.stages.run_folder import RunFolder
from presafe.workflows.export import export
from presafe.workflows.gate import system_of
from presafe.workflows.gate_check import check

RESULT = Path(__file__).parent / "results" / "gate_check.json"
ARGUMENTS = ("--runner", "pooling", "--max-model-len", "1024", "--max-num-seqs", "32", "--enforce-eager")
LINEAR = "_proj.weight"
"""How the names of the linear layers' weights end."""
Change = Callable[[dict[str, torch.Tensor], dict[str, Any]], None]
"""Changes weights and config in place."""


def main(words: list[str] | None = None) -> int:
    """Serve each side, check it, and write the record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--system", default="presafe")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args(words)
    environment = vllm_environment()
    run = RunFolder.existing(given.run)
    system = system_of(run, given.system)
    source = given.work / "classifier"
    if not source.exists():
        export(system, given.work, merge=False, classifier=True, gguf=None)
    record: dict[str, Any] = read_json(given.out) if given.out.exists() else {"sides": {}}
    record["manifest"] = build_manifest({"part": "gate_check"}, "")
    record["run"] = {"recipe": run.recipe.name, "model": run.recipe.model.address, "commit": run.manifest()["commit"]}
    sides: dict[str, tuple[str, Change]] = {
        "float32": ("float32", unchanged),
        "bfloat16": ("bfloat16", unchanged),
        "int8": ("bfloat16", in_int8),
        **{f"{bits} bits": ("bfloat16", rounded_to(bits)) for bits in (4, 3, 2)},
        "another model": ("bfloat16", scaled_to(0.0, run)),
        "adapter at 0.8": ("bfloat16", scaled_to(0.8, run)),
    }
    for name, (dtype, change) in sides.items():
        if name in record["sides"]:
            continue
        folder = changed(source, given.work / name.replace(" ", "_"), change)
        settings = EngineSettings(vllm=environment, arguments=ARGUMENTS)
        server = StartedServer(settings, Weights(str(folder), dtype), given.work / "vllm.log")
        try:
            report = check(run, given.system, f"{server.served.url}#{server.served.name}")
        finally:
            server.close()
        report["server"] = {"dtype": dtype, "read_by": report["server"]["read_by"]}
        report["commit"] = record["manifest"]["commit"]
        record["sides"][name] = report
        write_json(given.out, record)
        say(f"{name}: {report['verdict']}, p differs by at most {report['largest_difference']:.4f}")
    print(json.dumps({name: report["verdict"] for name, report in record["sides"].items()}, indent=1))
    return 0


def changed(source: Path, target: Path, change: Change) -> Path:
    """Write a copy of a model's folder with changed weights, and return it.

    Args:
        source: The folder; its weights are one file.
        target: Where to write; what is there is replaced.
        change: What changes.
    """
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    weights, config = load_file(target / "model.safetensors"), read_json(target / "config.json")
    change(weights, config)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    write_json(target / "config.json", config)
    return target


def unchanged(_weights: dict[str, torch.Tensor], _config: dict[str, Any]) -> None:
    """Change nothing."""


def quantized(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return integers and one scale for each row, symmetric, to the nearest.

    Args:
        weight: Shape (rows, columns).
        bits: Bits of an integer, 2 to 8.

    Returns:
        Shapes (rows, columns) and (rows, 1), float32.
    """
    most = 2 ** (bits - 1) - 1
    scale = weight.float().abs().amax(1, keepdim=True).clamp_min(1e-8) / most
    return (weight.float() / scale).round().clamp(-most, most), scale


def rounded_to(bits: int) -> Change:
    """Return the change that rounds the linear layers' weights to so many bits.

    Args:
        bits: 2 to 8.
    """

    def change(weights: dict[str, torch.Tensor], _config: dict[str, Any]) -> None:
        for name in [name for name in weights if name.endswith(LINEAR)]:
            integers, scale = quantized(weights[name], bits)
            weights[name] = (integers * scale).to(weights[name].dtype)

    return change


def in_int8(weights: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """Quantize the linear layers' weights for vLLM's int8 kernels, in the format of compressed-tensors.

    Args:
        weights: The weights by name.
        config: config.json.
    """
    for name in [name for name in weights if name.endswith(LINEAR)]:
        integers, scale = quantized(weights[name], 8)
        weights[name], weights[f"{name}_scale"] = integers.to(torch.int8), scale
    number = {"num_bits": 8, "type": "int", "symmetric": True}
    scheme = {
        "targets": ["Linear"],
        "weights": {**number, "strategy": "channel", "dynamic": False},
        "input_activations": {**number, "strategy": "token", "dynamic": True},
    }
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head", "score"],
        "config_groups": {"group_0": scheme},
    }


def scaled_to(share: float, run: RunFolder) -> Change:
    """Return the change that leaves a share of what the adapter adds to the base's weights.

    Args:
        share: The share; 0 is the base.
        run: The run whose model it is.
    """

    def change(weights: dict[str, torch.Tensor], _config: dict[str, Any]) -> None:
        model = load_model(run.recipe.model.address, dtype=run.recipe.model.dtype).model
        base = {name: weight.detach() for name, weight in model.state_dict().items() if name in weights}
        assert {name for name in weights if name not in base} == {"score.weight", "score.bias"} & weights.keys()
        for name, weight in base.items():
            mixed = torch.lerp(weight.float(), weights[name].float(), share)
            weights[name] = mixed.to(weights[name].dtype).contiguous()

    return change


if __name__ == "__main__":
    sys.exit(main())
