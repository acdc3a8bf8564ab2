"""The formulas of a plan, compared with models that are built and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from presafe.errors import ModelError
from presafe.planning.compute import (
    ForwardPass,
    Row,
    cache_bytes,
    forward_flops,
    layer_activations,
    training_bytes,
    training_flops,
)
from presafe.planning.shapes import known_shapes, shape_of, shape_of_config

CLASSES: dict[str, Any] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK, ROWS, TOKENS, SCORED, VOCABULARY = 8, 4, 96, 56, 512
PUBLISHED = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7_615_616_512,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": 8_030_261_248,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": 14_770_033_664,
    "Skywork/Skywork-OR1-7B": 7_615_616_512,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "smolthink": 134_515_008,
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": 1_543_714_304,
    "qwenthink": 494_032_768,
}
"""Parameters of the published weights."""


def config_of(shape: Any) -> Any:
    return CLASSES[shape.kind][0](
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
    )


@pytest.fixture(scope="module")
def tiny() -> Any:
    """Provide a Llama of 8 layers with grouped queries and LoRA on every linear map, and its shape."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    lora = LoraConfig(r=RANK, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    return get_peft_model(LlamaForCausalLM(config), lora), shape_of_config(config)


def step_loss(model: Any) -> Any:
    """Return the next-token loss of the last `SCORED` columns of a batch without padding."""
    ids = torch.randint(0, VOCABULARY, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    columns = torch.arange(TOKENS - SCORED, TOKENS)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), logits_to_keep=columns, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, columns].flatten())


@pytest.mark.parametrize("address", sorted(known_shapes()))
def test_parameters_are_counted_exactly(address: str) -> None:
    shape = known_shapes()[address]
    with torch.device("meta"):
        model = CLASSES[shape.kind][1](config_of(shape))
    assert shape.num_parameters() == sum(p.numel() for p in model.parameters()) == PUBLISHED[address]
    assert shape_of_config(model.config) == shape


def test_adapter_parameters_are_counted_exactly(tiny: Any) -> None:
    model, shape = tiny
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert shape.num_adapter_parameters(RANK, TARGETS) == trained
    with pytest.raises(ModelError, match="no linear map c_attn in a llama"):
        shape.num_adapter_parameters(RANK, ("c_attn",))


def test_flops_match_torch_counter(tiny: Any) -> None:
    model, shape = tiny
    adapter = shape.num_adapter_parameters(RANK, TARGETS)
    model.get_base_model().set_attn_implementation("eager")  # torch counts no fused attention on a CPU
    with FlopCounterMode(display=False) as forward:
        step_loss(model)
    assert forward.get_total_flops() == ROWS * forward_flops(shape, TOKENS, SCORED, adapter)
    with FlopCounterMode(display=False) as both:
        step_loss(model).backward()
    # Torch counts less by what the first layer need not pass on to the embedding: of 8 layers, under 1 %.
    ours = ROWS * training_flops(shape, Row(TOKENS, SCORED), adapter, checkpointing=False)
    assert both.get_total_flops() == pytest.approx(ours, rel=0.01)
    assert both.get_total_flops() < ours


def test_checkpointing_repeats_the_layers_forward(tiny: Any) -> None:
    _, shape = tiny
    plain, checkpointed = (training_flops(shape, Row(TOKENS, SCORED), 0, checkpointing=on) for on in (False, True))
    assert checkpointed - plain == forward_flops(shape, TOKENS, 0)


def test_activations_match_autograd(tiny: Any) -> None:
    model, shape = tiny
    model.get_base_model().set_attn_implementation("sdpa")
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = step_loss(model)
    assert loss.requires_grad  # and holds what was kept, so that no storage was counted twice
    ours = 4 * ROWS * TOKENS * shape.num_layers * layer_activations(shape, RANK, TARGETS)
    logits = 4 * ROWS * SCORED * VOCABULARY
    # The norms' factors, rotations and labels are left out: about 1 %.
    assert sum(kept.values()) == pytest.approx(ours + logits, rel=0.02)


def test_training_bytes_by_part(tiny: Any) -> None:
    model, shape = tiny
    forward = ForwardPass(ROWS, TOKENS, num_logits=0)
    planned = training_bytes(shape, RANK, TARGETS, forward, dtype="float32", checkpointing=True)
    base = [p for name, p in model.named_parameters() if not p.requires_grad]
    assert planned.weights == sum(p.numel() * p.element_size() for p in base)
    step_loss(model).backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    optimizer.step()
    moments = sum(v.numel() * v.element_size() for s in optimizer.state.values() for k, v in s.items() if k != "step")
    measured = moments + 2 * sum(p.numel() * p.element_size() for p in trained)  # and its gradient
    head = 16 * (64 + 1)  # φ: 64 weights and a bias, which this model has not
    assert planned.adapter == measured + head
    optimizer.zero_grad()
    # 4 bytes · 4 rows · 96 tokens · (8 layers · 64 + one layer's own)
    assert planned.activations == 4 * 4 * 96 * (8 * 64 + layer_activations(shape, RANK, TARGETS))
    sharded = training_bytes(shape, RANK, TARGETS, forward, dtype="float32", checkpointing=True, shards=2)
    assert sharded.adapter == planned.adapter / 2
    # half, and gathered one of the 8 layers and the embedding
    assert sharded.weights == planned.weights / 2 + 4 * (shape.num_layer_weights() / 8 + 64 * VOCABULARY)


def test_cache_bytes_match_the_real_cache(tiny: Any) -> None:
    model, shape = tiny
    ids = torch.arange(10)[None]
    with torch.no_grad():
        cache = model(input_ids=ids, use_cache=True).past_key_values
    grown = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert 10 * cache_bytes(shape, "float32") == grown


def test_shape_of_unknown_model_comes_from_its_config(tmp_path: Path, tiny: Any) -> None:
    tiny[0].get_base_model().config.save_pretrained(tmp_path)
    assert shape_of(str(tmp_path)) == tiny[1]
    with pytest.raises(ModelError, match="cannot read the config of"):
        shape_of("presafe-tests/not-there")


def test_served_model_has_no_plan() -> None:
    with pytest.raises(ModelError, match="a served model has no config here") as error:
        shape_of("http://127.0.0.1:8000#Qwen/Qwen3-8B")
    assert "name its hub id" in error.value.hint
