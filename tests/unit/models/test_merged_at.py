"""A scale is tried on the merged weights that are evaluated, and the weights are as before afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import make_model

from presafe.alignment.scale import rescale
from presafe.models.adapters import merge_adapter, merged_at, with_adapter


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Write an adapter with random weights."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(make_model(), config).save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    named = {name.replace(".base_layer", ""): value.clone() for name, value in model.state_dict().items()}
    return {name: value for name, value in named.items() if "lora_" not in name}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_scale_is_tried_on_the_model_that_is_evaluated(adapter: Path, dtype: torch.dtype) -> None:
    adapted = with_adapter(make_model().to(dtype), adapter, "tiny")
    before = weights_of(adapted.get_base_model())
    for scale in (1.0, 0.5):
        rescale(adapter, 8 * scale)
        merged = weights_of(merge_adapter(make_model().to(dtype), adapter, "tiny"))
        assert any(not torch.equal(merged[name], before[name]) for name in before)
        with merged_at(adapted, scale):
            tried = weights_of(adapted.get_base_model())
            assert all(torch.equal(tried[name], merged[name]) for name in before)
        after = weights_of(adapted.get_base_model())
        assert all(torch.equal(after[name], before[name]) for name in before)
