"""Tiny random models of the architectures of reasoning models, each with a tokenizer and its template."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from family_cases import CASES
from transformers import AddedToken

from presafe.models.family import families

_COMMON = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "num_hidden_layers": 2,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
_GROUPED = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_DENSE = (*_ATTENTION, "gate_proj", "up_proj", "down_proj")
_GATED = (*_DENSE, "out_proj", "shared_expert_gate")
_COMPRESSED = (*_DENSE[3:], "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
_SHARED_EXPERT = {**_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 32}
_TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_AROUND = {"tie_word_embeddings": False, "out_hidden_size": 64, "projector_hidden_size": 32}
_SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64}


class Architecture(NamedTuple):
    """A class of transformers, how a tiny one is configured, a template of the table, and its LoRA targets."""

    name: str
    config: dict[str, Any]
    case: str
    targets: tuple[str, ...]
    config_name: str = ""
    """Name of its text model's config class, where it is not the model's."""
    vision: dict[str, Any] = {}  # noqa: RUF012
    """Config of its vision tower; with one, the text model is part of a model of both."""


ARCHITECTURES = {
    "gpt_oss": Architecture(
        "GptOss", {"num_local_experts": 4, "num_experts_per_tok": 2, **_SLIDING}, "gptoss", _ATTENTION
    ),
    "nemotron_h": Architecture(
        "NemotronH",
        {
            **_EXPERTS,
            **{key: value for key, value in _GROUPED.items() if key != "first_k_dense_replace"},
            "num_hidden_layers": None,
            "hybrid_override_pattern": "M*-E",
            "mamba_num_heads": 4,
            "mamba_head_dim": 8,
            "ssm_state_size": 8,
            "n_groups": 2,
            "moe_shared_expert_intermediate_size": 32,
            "chunk_size": 16,
        },
        "nemotron_3_nano",
        (*_ATTENTION, "up_proj", "down_proj", "in_proj"),  # not Mamba's out_proj, which a fused kernel reads
    ),
    "lfm2": Architecture(
        "Lfm2",
        {"layer_types": ["conv", "full_attention"], "block_multiple_of": 16},
        "lfm2_2_5",
        ("q_proj", "k_proj", "v_proj", "out_proj", "in_proj", "w1", "w2", "w3"),
    ),
    "lfm2_vl": Architecture(
        "Lfm2Vl",
        {"layer_types": ["conv", "full_attention"], "block_multiple_of": 16},
        "lfm2_2_5_vl",
        ("q_proj", "k_proj", "v_proj", "out_proj", "in_proj", "w1", "w2", "w3"),
        "Lfm2Config",
        {"model_type": "siglip2_vision_model", **_TOWER},
    ),
    "lfm2_moe": Architecture(
        "Lfm2Moe",
        {**_EXPERTS, "num_experts": 4, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
        "lfm2_2_5",
        ("q_proj", "k_proj", "v_proj", "out_proj", "in_proj", "w1", "w2", "w3"),
    ),
    "glm4_moe": Architecture("Glm4Moe", {**_EXPERTS, **_GROUPED}, "glm4moe", _DENSE),
    "qwen3_5": Architecture(
        "Qwen3_5",
        _LINEAR,
        "qwen3_5_think",
        (*_DENSE, "out_proj", "in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b"),
        "Qwen3_5TextConfig",
    ),
    "qwen3_5_vision": Architecture(
        "Qwen3_5",
        _LINEAR,
        "qwen3_5_think",
        (*_DENSE, "out_proj", "in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b"),
        "Qwen3_5TextConfig",
        {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32},
    ),
    "qwen3_5_moe": Architecture(
        "Qwen3_5Moe",
        {**_LINEAR, **_SHARED_EXPERT},
        "qwen3_5_think",
        (*_GATED, "in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b"),
        "Qwen3_5MoeTextConfig",
    ),
    "qwen3_next": Architecture(
        "Qwen3Next", {**_LINEAR, **_SHARED_EXPERT}, "Qwen3-Thinking-2507", (*_GATED, "in_proj_qkvz", "in_proj_ba")
    ),
    "llama": Architecture("Llama", {}, "deepseek_r1_distill", _DENSE),
    "qwen2": Architecture("Qwen2", {}, "deepseek_r1_distill", _DENSE),
    "qwen3": Architecture("Qwen3", {}, "qwen3", _DENSE),
    "deepseek_v3": Architecture("DeepseekV3", {**_EXPERTS, **_GROUPED, **_LATENT}, "DeepSeek-V3.1", _COMPRESSED),
    "deepseek_v32": Architecture(
        "DeepseekV32",
        {**_EXPERTS, **_GROUPED, **_LATENT, "index_topk": 16, "index_head_dim": 16, "index_n_heads": 2},
        "DeepSeek-V3.1",
        _COMPRESSED,  # not the indexer's maps, which get no gradient
    ),
    "granite": Architecture("Granite", {"logits_scaling": 8.0}, "Granite-3.3", _DENSE),
    "granitemoe": Architecture(
        "GraniteMoe",
        {"logits_scaling": 8.0, "num_local_experts": 4, "num_experts_per_tok": 2},
        "Granite-3.3",
        _ATTENTION,
    ),
    "mistral": Architecture("Mistral", {}, "Magistral", _DENSE),
    "ministral3": Architecture("Ministral3", {}, "Magistral", _DENSE),
    "mistral3": Architecture(
        "Mistral3", {}, "Magistral", _DENSE, "Ministral3Config", {"model_type": "pixtral", **_TOWER, "image_size": 32}
    ),
    "muse_glimmer": Architecture(
        "MuseGlimmer",
        {"num_attention_heads": 4},
        "muse_glimmer",
        _DENSE,
        "MuseGlimmerTextConfig",
        {**_TOWER, "patch_size": 4},
    ),
    "qwen3_moe": Architecture("Qwen3Moe", {**_EXPERTS, "num_experts": 4}, "qwen3", _ATTENTION),
    "minimax_m2": Architecture(
        "MiniMaxM2", {"num_local_experts": 4, "num_experts_per_tok": 2, "rotary_dim": 8}, "MiniMax-M2", _ATTENTION
    ),
    "gemma4": Architecture(
        "Gemma4",
        {
            "vocab_size_per_layer_input": 320,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 0,
            **_SLIDING,
        },
        "gemma4_v5",
        (*_DENSE, "per_layer_input_gate", "per_layer_projection"),
        "Gemma4TextConfig",
    ),
    "gemma4_vision": Architecture(
        "Gemma4",
        {"hidden_size_per_layer_input": 0, "final_logit_softcapping": 30.0, **_SLIDING},
        "gemma4_v5",
        _DENSE,
        "Gemma4TextConfig",
        {"model_type": "gemma4_vision", **_TOWER, "num_key_value_heads": 2, "head_dim": 8, "patch_size": 4},
    ),
    "gemma4_unified": Architecture(
        "Gemma4Unified",
        {"final_logit_softcapping": 30.0, **_SLIDING},
        "gemma4_v5",
        _DENSE,
        "Gemma4UnifiedTextConfig",
    ),
    "olmo3": Architecture("Olmo3", _SLIDING, "OLMo-3-Think", _DENSE),
    "smollm3": Architecture("SmolLM3", {}, "SmolLM3", _DENSE),
    "exaone4": Architecture("Exaone4", _SLIDING, "EXAONE-4.0", _DENSE),
    "phi3": Architecture("Phi3", {}, "Phi-4-reasoning", ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")),
}


def class_name(name: str) -> str:
    """Return the name of an architecture's class in transformers."""
    kind = "ForConditionalGeneration" if ARCHITECTURES[name].vision else "ForCausalLM"
    return f"{ARCHITECTURES[name].name}{kind}"


def make(name: str, tokenizer: Any) -> Any:
    """Return a tiny random model of an architecture, for a tokenizer's vocabulary."""
    architecture = ARCHITECTURES[name]
    fields = {key: value for key, value in (_COMMON | architecture.config).items() if value is not None}
    config = getattr(transformers, architecture.config_name or f"{architecture.name}Config")(
        vocab_size=len(tokenizer),
        **{kind: getattr(tokenizer, kind) for kind in ("pad_token_id", "bos_token_id", "eos_token_id")},
        **fields,
    )
    torch.manual_seed(0)
    if not architecture.vision:
        return getattr(transformers, class_name(name))(config).eval()
    both = getattr(transformers, f"{architecture.name}Config")
    whole = both(text_config=config.to_dict(), vision_config=architecture.vision, **_AROUND)
    return getattr(transformers, class_name(name))(whole).eval()


def save(name: str, tokenizer: Any, folder: Path) -> Path:
    """Save a tiny model with a tokenizer that has the marks of its family, and the template."""
    case = CASES[ARCHITECTURES[name].case]
    marked = copy.deepcopy(tokenizer)
    family = families()[case.family]
    known = ["assistant", "<|start|>", "<|message|>", "<|channel|>", "<|end|>", *case.marks, *family.stop]
    known += [text for text in (family.decision_text, family.off_decision_text or "") if len(text.strip()) > 1]
    marked.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in dict.fromkeys(known)])
    marked.chat_template = case.source
    make(name, marked).save_pretrained(folder)
    marked.save_pretrained(folder)
    return folder
