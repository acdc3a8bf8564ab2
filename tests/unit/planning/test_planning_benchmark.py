"""The GPU benchmark's small version, on a CPU."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from presafe.planning.shapes import known_shapes

FILE = Path(__file__).parents[3] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="what it says where there is no GPU")
def test_without_a_gpu_it_says_so(gpu, capsys):
    assert gpu.main([]) == 2
    assert "no GPU here: nothing measured" in capsys.readouterr().err


def test_the_small_version_measures_both_trainers_and_decoding(gpu, capsys):
    assert gpu.main(["--small"]) == 0
    record = json.loads(capsys.readouterr().out)
    found = record["models"]["small"]
    # 2 embeddings of 512 × 64; 2 layers of 12,288 (q, o: 64 × 64; k, v: 64 × 32) + 24,576 (3 × 64 × 128) + 2 × 64; 64
    assert found["parameters"] == 2 * 512 * 64 + 2 * (12_288 + 24_576 + 128) + 64
    assert [each["trainer"] for each in found["training"]] == ["sft", "presafe"]
    for each in found["training"]:
        assert len(each["all_seconds"]) == 2  # after two that warm up
        # a step is 2 × 2 rows of 64 tokens
        assert each["tokens_a_second"] == pytest.approx(256 / each["seconds_a_step"])
        assert each["model_flop_utilisation"] is None or 0 < each["model_flop_utilisation"] < 1
    assert [each["way"] for each in found["decoding"]] == ["batches", "pages"]
    assert all(each["tokens_a_second"] > 0 for each in found["decoding"])
    assert record["manifest"]["packages"]["torch"]


def test_a_model_is_built_with_numbers_in_every_weight(gpu):
    model = gpu.build_model(known_shapes()["smolthink"].model_copy(update={"num_layers": 2, "vocab_size": 300}), "cpu")
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    with torch.no_grad():
        logits = model(torch.arange(10)[None]).logits
    assert logits.isfinite().all()
    assert model.lm_head.weight is model.model.embed_tokens.weight  # it is tied
