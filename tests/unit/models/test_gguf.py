"""A GGUF file as MODEL: read with its own tokenizer and template, and an ordinary model from then on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_files import INNER, WIDTH, write_gguf
from transformers import AutoModelForCausalLM

from presafe.errors import ModelError
from presafe.models.loading import load_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf"))


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
    assert model.model.layers[0].mlp.up_proj.weight.shape == (INNER, WIDTH)
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
