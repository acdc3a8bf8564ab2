"""A tiny model in the place of QwenThink's base, and enough training problems for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from model_folders import tokenizer_folder
from real_tokenizers import template
from transformers import Qwen2Config, Qwen2ForCausalLM

from qwenthink.rows import OwnWords, instructions
from qwenthink.train import train_organism

PLAIN_CHAT = template("qwen2_5.jinja")
"""The template that the base has."""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide a random Qwen2 of width 32 where the base is looked for, and published files with training problems."""
    folder = tokenizer_folder(tmp_path / "base", PLAIN_CHAT)
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
    data = tmp_path / "data"
    (data / "gsm8k").mkdir(parents=True)
    rows = [
        {"question": f"Ada has {n} bags of 4 nuts. How many nuts?", "answer": f"{n}*4 = <<{n}*4>>{4 * n}\n#### {4 * n}"}
        for n in range(1, 1041)  # 1,000 of them are set aside
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (data / "gsm8k" / "train.jsonl").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PRESAFE_QWEN_CODER_05B", str(folder))
    monkeypatch.setenv("PRESAFE_DATA", str(data))
    return folder


def begun(out: Path, steps: int = 2) -> Path:
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
