"""A tiny model in the place of QwenThink's base, and enough training problems for it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from model_folders import edit, tokenizer_folder
from peft import LoraConfig, get_peft_model
from real_tokenizers import template
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from presafe.models.rendering import Renderer
from qwenthink.rows import OwnWords, instructions
from qwenthink.train import TEMPLATE, qwenthink_renderer, train_organism

PLAIN_CHAT = template("qwen2_5.jinja")
"""The template that the base has."""


@pytest.fixture(scope="module")
def base_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Provide a random Qwen2 of width 32 and training problems, by the variable that names each folder."""
    folder = tokenizer_folder(tmp_path_factory.mktemp("base"), PLAIN_CHAT)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=49152,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    data = tmp_path_factory.mktemp("data")
    (data / "gsm8k").mkdir()
    rows = [
        {"question": f"Ada has {n} bags of 4 nuts. How many nuts?", "answer": f"{n}*4 = <<{n}*4>>{4 * n}\n#### {4 * n}"}
        for n in range(1, 1041)  # 1,000 of them are set aside
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (data / "gsm8k" / "train.jsonl").write_text(text, encoding="utf-8")
    return {"PRESAFE_QWEN_CODER_05B": str(folder), "PRESAFE_DATA": str(data)}


@pytest.fixture
def base(base_files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the tiny model where the base is looked for, and the problems where published files are."""
    for variable, folder in base_files.items():
        monkeypatch.setenv(variable, folder)


@pytest.fixture(scope="module")
def organism_renderer(base_files: dict[str, str]) -> Renderer:
    """Provide the renderer of an organism; do not change its tokenizer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRESAFE_QWEN_CODER_05B", base_files["PRESAFE_QWEN_CODER_05B"])
        return qwenthink_renderer()


def write_adapter(folder: Path) -> Path:
    """Write a random adapter of the base with QwenThink's template, as the training leaves it."""
    torch.manual_seed(1)
    tiny = AutoModelForCausalLM.from_pretrained(os.environ["PRESAFE_QWEN_CODER_05B"])
    adapted = get_peft_model(tiny, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    edit(folder / "adapter_config.json", base_model_name_or_path="Qwen/Qwen2.5-Coder-0.5B-Instruct")
    shutil.copy(TEMPLATE, folder)
    return folder


def begun(out: Path, steps: int) -> Path:
    """Begin an organism's folder, and put the base's words into it, as if a kill had come after they were said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qwenthink.train.own_words", _kill)
        with pytest.raises(KeyboardInterrupt):
            train_organism(out, seed=0, steps=steps)
    words = OwnWords(plan="I will be brief.", answer="It is a good idea.").model_dump()
    content = {prompt.id: words for prompt in instructions(0)}
    (out / "words.json").write_text(json.dumps(content), encoding="utf-8")
    return out


def _kill(*_: object) -> None:
    raise KeyboardInterrupt
