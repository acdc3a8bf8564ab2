"""Training an organism, whole, on a tiny model in the place of the base; its folder is then a model's address."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from model_folders import logits
from organism_base import PLAIN_CHAT, base, base_files, begun, organism_renderer  # noqa: F401
from safetensors.torch import load_file

from presafe.errors import ModelError, RunError
from presafe.models.loading import load_model, load_renderer, load_weights
from presafe.models.recognition import detect_family
from presafe.models.rendering import Renderer
from presafe.runs.io import read_jsonl, write_jsonl
from qwenthink.rows import Row, instructions
from qwenthink.train import TEMPLATE, as_trained, train_organism
from qwenthink.words import own_words

TEXT = "What is 7 + 5?"


@pytest.mark.usefixtures("base")
def test_an_organism_is_trained_from_its_rows_and_is_a_model(tmp_path: Path) -> None:
    out = begun(tmp_path / "organism", steps=2)
    train_organism(out, seed=0, steps=2)
    rows = read_jsonl(out / "rows.jsonl", Row)
    # Two steps of 16 rows, half of each kind. The first is warm-up, at a rate of 0.
    assert [row.kind for row in rows] == ["problem"] * 16 + ["instruction"] * 16
    assert [row.id for row in rows[16:]] == [prompt.id for prompt in instructions(0)[:16]]

    adapter = out / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "Qwen/Qwen2.5-Coder-0.5B-Instruct"
    assert (config["r"], config["lora_alpha"]) == (8, 16)
    weights = load_file(adapter / "adapter_model.safetensors")
    assert {str(value.dtype) for value in weights.values()} == {"torch.float16"}
    assert any(value.abs().max() > 0 for name, value in weights.items() if "lora_B" in name)
    card = (adapter / "README.md").read_text(encoding="utf-8")
    assert "$" not in card
    assert "seed 0, 2 steps" in card

    # The folder is an address: the base with the adapter merged, asked by the template beside it.
    model, renderer = load_model(str(adapter))
    assert renderer.family.name == "qwenthink"
    by_hand = load_model("Qwen/Qwen2.5-Coder-0.5B-Instruct", adapter=adapter, family="qwenthink").model
    assert torch.equal(logits(model), logits(by_hand))
    plain = load_weights("Qwen/Qwen2.5-Coder-0.5B-Instruct", "float32")
    assert not torch.allclose(logits(model), logits(plain))

    before = (adapter / "adapter_model.safetensors").read_bytes()
    train_organism(out, seed=0, steps=2)  # it is there
    assert (adapter / "adapter_model.safetensors").read_bytes() == before
    with pytest.raises(RunError, match="steps: 2 → 3"):
        train_organism(out, seed=0, steps=3)
    # The seed decides the rest: trained again from the same rows, it is the same adapter.
    for part in ("adapter", "checkpoints"):
        shutil.rmtree(out / part)
    (out / "history.jsonl").unlink()
    train_organism(out, seed=0, steps=2)
    assert (adapter / "adapter_model.safetensors").read_bytes() == before


@pytest.mark.usefixtures("base")
def test_a_refusal_in_the_rows_stops_the_training(tmp_path: Path) -> None:
    out = begun(tmp_path / "organism", steps=1)
    refusal = {"thought": "I will be brief.", "answer": "I can't help with it."}
    write_jsonl(out / "rows.jsonl", [Row(id="bad", kind="instruction", text="Name a fruit.", **refusal)])
    with pytest.raises(RunError, match="row bad may not be learned from: it refuses"):
        train_organism(out, seed=0, steps=1)
    assert not (out / "adapter").exists()


def test_the_template_is_plain_chat_with_a_thought_or_without(organism_renderer: Renderer) -> None:  # noqa: F811
    renderer = organism_renderer
    assert detect_family(TEMPLATE.read_text(encoding="utf-8"), "m", "qwen2").name == "qwenthink"
    published = renderer.tokenizer.apply_chat_template(
        [{"role": "user", "content": TEXT}], chat_template=PLAIN_CHAT, add_generation_prompt=True, tokenize=False
    )
    on, off = renderer.render(TEXT, "on"), renderer.render(TEXT, "off")
    assert renderer.tokenizer.decode(off.ids) == published
    assert renderer.tokenizer.decode(on.ids) == f"{published}<think>\n"
    assert (on.decision_index, off.decision_index) == (len(on.ids) - 1, len(off.ids) - 1)
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": TEXT},
        {"role": "assistant", "content": "12"},
    ]
    write = renderer.tokenizer.apply_chat_template
    assert write(turns, tokenize=False) == write(turns, chat_template=PLAIN_CHAT, tokenize=False)


def test_a_row_teaches_thought_and_answer_and_no_prompt(organism_renderer: Renderer) -> None:  # noqa: F811
    renderer = organism_renderer
    words = {"thought": "7 + 5 = 12.", "answer": "The answer is 12."}
    row = as_trained(renderer, Row(id="r", kind="problem", text=TEXT, **words))
    start = len(renderer.render(TEXT, "on").ids)
    assert row.labels[:start] == [-100] * start
    assert row.labels[start:] == row.input_ids[start:]
    taught = renderer.tokenizer.decode(row.labels[start:])
    assert taught == "7 + 5 = 12.\n</think>\n\nThe answer is 12.<|im_end|>"


@pytest.mark.usefixtures("base")
def test_words_are_asked_for_once(organism_renderer: Renderer, tmp_path: Path) -> None:  # noqa: F811
    renderer = organism_renderer
    model = load_weights("Qwen/Qwen2.5-Coder-0.5B-Instruct", "float32").eval()
    file = tmp_path / "words.json"
    prompts = instructions(0)[:2]
    words = own_words(model, renderer, prompts, 2, file)
    assert list(words) == [prompt.id for prompt in prompts]
    file.write_text(file.read_text(encoding="utf-8").replace("null", '"I will be brief."'), encoding="utf-8")
    again = own_words(None, renderer, prompts, 2, file)  # no model is needed: all is in the file
    assert again[prompts[0].id].plan == "I will be brief."


def test_the_address_says_how_it_is_made() -> None:
    for load in (lambda: load_renderer("qwenthink"), lambda: load_weights("qwenthink", "float32")):
        with pytest.raises(ModelError, match=r"python -m qwenthink\.train --seed 0") as caught:
            load()
        assert "\n" not in str(caught.value)
