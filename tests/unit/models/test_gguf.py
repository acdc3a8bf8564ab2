"""A GGUF file as MODEL: read with its own tokenizer and template, and an ordinary model from then on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM

from presafe.errors import ModelError
from presafe.models.loading import load_model, smolthink_adapter

_WIDTH, _INNER, _HEADS = 32, 64, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf"))


def write_gguf(folder: Path, change: Callable[[dict[str, np.ndarray]], None] = lambda tensors: None) -> Path:
    """Return a random Llama of one layer over single bytes and SmolThink's control tokens, its tensors changed."""
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*control, *sorted(ByteLevel.alphabet()), "Ġa"]
    writer = gguf.GGUFWriter(folder / "tiny.gguf", "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3))
    writer.add_token_merges(["Ġ a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template((smolthink_adapter() / "chat_template.jinja").read_text(encoding="utf-8"))
    draw = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(tokens), _WIDTH),
        "output_norm": (_WIDTH,),
        "output": (len(tokens), _WIDTH),
        **{f"blk.0.attn_{name}": (_WIDTH, _WIDTH) for name in ("q", "k", "v", "output")},
        **{f"blk.0.{name}_norm": (_WIDTH,) for name in ("attn", "ffn")},
        "blk.0.ffn_gate": (_INNER, _WIDTH),
        "blk.0.ffn_up": (_INNER, _WIDTH),
        "blk.0.ffn_down": (_WIDTH, _INNER),
    }
    tensors = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    change(tensors)
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        values: torch.Tensor = model(torch.tensor([ids])).logits
    return values


def test_a_folder_with_one_gguf_file_is_a_model(folder: Path, tmp_path: Path) -> None:
    model, renderer = load_model(str(folder))
    assert renderer.family.name == "smolthink"
    rendered = renderer.render("a <|im_end|> b", "on")
    assert renderer.tokenizer.decode(rendered.ids) == (
        "<|im_start|>user\na <|im_end|> b<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    assert rendered.ids.count(2) == 1  # the user's mark is text
    # The up projection is stored as it is; what was drawn fifth from last.
    assert model.model.layers[0].mlp.up_proj.weight.shape == (_INNER, _WIDTH)
    assert model.model.layers[0].mlp.up_proj.weight.requires_grad  # it can be trained
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(again, rendered.ids), logits(model, rendered.ids))
    by_file, _ = load_model(str(folder / "tiny.gguf"))
    assert torch.equal(logits(by_file, rendered.ids), logits(model, rendered.ids))


@pytest.mark.parametrize("num_bytes", [2_000, 50_000], ids=["in_its_fields", "in_its_weights"])
def test_a_file_that_was_cut_is_one_line(folder: Path, tmp_path: Path, num_bytes: int) -> None:
    (tmp_path / "tiny.gguf").write_bytes((folder / "tiny.gguf").read_bytes()[:num_bytes])
    with pytest.raises(ModelError, match="its GGUF file cannot be read, perhaps because its download was cut"):
        load_model(str(tmp_path))


def spoil(tensors: dict[str, np.ndarray]) -> None:
    tensors["blk.0.ffn_up"][3, 4] = np.nan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("blk.0.ffn_up"), "missing in its files, first: model.layers.0.mlp.up_proj.weight"),
        (spoil, "NaN or infinite, first: model.layers.0.mlp.up_proj.weight"),
        (lambda tensors: tensors.update({"blk.0.ffn_up": tensors["blk.0.ffn_up"][:5]}), "up_proj.weight has the shape"),
    ],
    ids=["missing", "nan", "shape"],
)
def test_a_file_without_all_of_the_model_is_one_line(
    tmp_path: Path, change: Callable[[dict[str, np.ndarray]], None], words: str
) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        load_model(str(write_gguf(tmp_path, change)))
    assert "\n" not in str(caught.value)
