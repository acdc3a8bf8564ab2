"""The GPU benchmark's small version, on a CPU."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from presafe.config.recipe import AlignSettings
from presafe.planning.compute import Row, training_flops
from presafe.planning.devices import Device, known_devices
from presafe.planning.shapes import known_shapes

FILE = Path(__file__).parents[3] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="what it says where there is no GPU")
def test_benchmark_without_gpu_fails(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "no GPU here: nothing measured" in capsys.readouterr().err


def test_small_benchmark_measures_training_and_decoding(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--small"]) == 0
    record = json.loads(capsys.readouterr().out)
    small = record["models"]["small"]
    # 2 embeddings of 512 × 64; 2 layers of 12,288 (q, o: 64 × 64; k, v: 64 × 32) + 24,576 (3 × 64 × 128) + 2 × 64; 64
    assert small["parameters"] == 2 * 512 * 64 + 2 * (12_288 + 24_576 + 128) + 64
    assert [training["trainer"] for training in small["training"]] == ["sft", "presafe"]
    for training in small["training"]:
        assert len(training["all_seconds"]) == 2  # after two steps of warm-up
        # a step is 2 × 2 rows of 64 tokens
        assert training["tokens_a_second"] == pytest.approx(256 / training["seconds_a_step"])
        assert training["model_flop_utilisation"] is None or 0 < training["model_flop_utilisation"] < 1
    assert [decoding["way"] for decoding in small["decoding"]] == ["batches", "pages"]
    assert all(decoding["tokens_a_second"] > 0 for decoding in small["decoding"])
    assert all(decoding["planned"] == {"tokens_a_second": None} for decoding in small["decoding"])  # an unknown GPU
    assert record["manifest"]["packages"]["torch"]


def test_built_model_has_finite_weights(gpu: Any) -> None:
    model = gpu.build_model(known_shapes()["smolthink"].model_copy(update={"num_layers": 2, "vocab_size": 300}), "cpu")
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    with torch.no_grad():
        logits = model(torch.arange(10)[None]).logits
    assert logits.isfinite().all()
    assert model.lm_head.weight is model.model.embed_tokens.weight  # it is tied


@pytest.mark.parametrize(
    ("name", "memory_gib", "device"),
    [
        ("NVIDIA H100 80GB HBM3", 79.6, "h100-80gb"),
        ("NVIDIA A100-SXM4-40GB", 39.5, "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", 79.3, "a100-80gb"),
        # Failed first: each card with RTX in its name was taken for the first of them.
        ("NVIDIA GeForce RTX 4090", 23.6, "rtx-4090"),
        ("NVIDIA RTX A6000", 47.5, None),
        ("cpu", 0, None),
    ],
)
def test_device_is_found_by_name_and_memory(gpu: Any, name: str, memory_gib: float, device: str | None) -> None:
    assert gpu.device_of(name, memory_gib) == (known_devices()[device] if device else None)


def test_benchmark_record_holds_the_plan(gpu: Any) -> None:
    settings = gpu.read_settings(["--small"])
    # 10⁹ operations and bytes a second
    slow = Device(memory_gib=1, tflops=0.001, bandwidth_gbs=1)
    (decoding, _) = gpu.time_decoding(gpu.SMALL, settings, "cpu", slow)
    # A step of 4 rows reads 2 layers of 36,864 weights and the head, 512 · 64, 2 bytes each, and the cache: 4 rows of
    # 96 + 8 tokens on average, with 2 layers · 2 (keys and values) · 2 heads · 16 numbers. Its products take longer: 2
    # operations a weight and row. 0.4 of that is reached.
    operations = 2 * (2 * 36_864 + 512 * 64) * 4
    assert operations > 2 * (2 * 36_864 + 512 * 64) + 4 * (96 + 8) * 256
    assert decoding["planned"]["tokens_a_second"] == pytest.approx(4 / (operations / 1e9 / 0.4))
    training = gpu.time_steps("presafe", gpu.SMALL, settings, "cpu", slow)
    adapter = gpu.SMALL.num_adapter_parameters(8, AlignSettings().lora_targets)
    done = 4 * training_flops(gpu.SMALL, Row(64, 48), adapter, checkpointing=True)
    assert training["planned"]["seconds_a_step"] == pytest.approx(done / (1e9 * 0.35))
    useful = 4 * training_flops(gpu.SMALL, Row(64, 48), adapter, checkpointing=False)
    assert training["model_flop_utilisation"] == pytest.approx(useful / training["seconds_a_step"] / 1e9)
    weights = 2 * gpu.SMALL.num_parameters()
    assert training["planned"]["peak_memory_gib"] * 1024**3 > weights + 16 * adapter


RECORDS = sorted((FILE.parent / "results").glob("gpu-*.json"))


@pytest.mark.skipif(not RECORDS, reason="no GPU record yet: python benchmarks/gpu.py makes one")
def test_plan_is_near_every_gpu_record() -> None:
    """Compare memory within a quarter and time within a factor of 2, as on a CPU."""
    for model in (model for file in RECORDS for model in json.loads(file.read_text())["models"].values()):
        ours = model["training"][1]
        assert ours["peak_memory_gib"] == pytest.approx(ours["planned"]["peak_memory_gib"], rel=0.25)
        assert 0.5 < ours["seconds_a_step"] / ours["planned"]["seconds_a_step"] < 2
        pages = model["decoding"][1]
        assert 0.5 < pages["tokens_a_second"] / pages["planned"]["tokens_a_second"] < 2
