"""A random model of two layers around SmolLM2's tokenizer, in a folder whose files a test may break."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import trl
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from presafe.models.loading import smolthink_adapter
from presafe.models.weights import smollm2_folder

IDS = torch.tensor([[1, 4093, 198, 2, 198]])
TEMPLATE = (smolthink_adapter() / "chat_template.jinja").read_text(encoding="utf-8")
QWEN3 = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")


def tokenizer_folder(folder: Path, template: Any = TEMPLATE) -> Path:
    """SmolLM2's tokenizer with a template of choice."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(smollm2_folder() / name, folder)
    edit(folder / "tokenizer_config.json", chat_template=template)
    return folder


def model_folder(folder: Path, *, tied: bool = True, template: Any = TEMPLATE, seed: int = 0) -> Path:
    """Return the tokenizer's folder with a random Llama of width 32."""
    tokenizer_folder(folder, template)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        initializer_range=0.2,
        tie_word_embeddings=tied,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


_OWN_CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

with Path({marker!r}).open("a") as marker:
    marker.write("ran\\n")

class OwnConfig(LlamaConfig):
    model_type = "own_llama"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig

class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


def add_own_code(folder: Path) -> Path:
    """Make a model's folder one whose code transformers must run to load it; returns the file that the code writes."""
    marker = folder / "code_ran.txt"
    (folder / "own.py").write_text(_OWN_CODE.format(marker=str(marker)), encoding="utf-8")
    edit(
        folder / "config.json",
        model_type="own_llama",
        architectures=["OwnModel"],
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    )
    edit(
        folder / "tokenizer_config.json",
        tokenizer_class="OwnTokenizer",
        auto_map={"AutoTokenizer": [None, "own.OwnTokenizer"]},
    )
    return marker


def edit(file: Path, **values: Any) -> None:
    """Change entries of a JSON object in a file."""
    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps(content | values), encoding="utf-8")


def rewrite(file: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Change the tensors in a safetensors file."""
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(input_ids=IDS).logits
    return result
