"""Tiny models, a byte-level tokenizer, hand-made rows and the fixtures for them: a training step takes milliseconds."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import pytest
import torch

from presafe.models.family import families
from presafe.models.loading import smolthink_adapter
from presafe.models.rendering import Renderer

LORA_TARGETS = ["q_proj", "v_proj", "down_proj"]

Row = dict[str, Any]
"""A row as `PreSafeCollator` reads it."""
TrainerFactory = Callable[..., Any]
"""`make_trainer` without the tokenizer and the folder."""


def make_tokenizer() -> Any:
    """Return a tokenizer in which every byte is a token, plus ChatML's marks: 260 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    byte_level = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    byte_level.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level,
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = (smolthink_adapter() / "chat_template.jinja").read_text(encoding="utf-8")
    return tokenizer


def make_model(seed: int = 0, *, vocab_size: int = 260) -> Any:
    """Return a random Llama of 2 layers and hidden size 32; its weights are wide enough that its logits differ."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def make_row(prompt: list[int], completion: list[int], signal: float) -> Row:
    """Return a row whose last prompt token is the decision position."""
    return {
        "input_ids": prompt + completion,
        "labels": [-100] * len(prompt) + completion,
        "decision_index": len(prompt) - 1,
        "signal": signal,
    }


def make_rows() -> list[Row]:
    """Return four rows of 7, 8, 8 and 9 tokens, with 3, 2, 5 and 4 label tokens: 14 together."""
    return [
        make_row([11, 12, 13, 14], [21, 22, 23], 0.9),
        make_row([31, 32, 33, 34, 35, 36], [41, 42], 0.1),
        make_row([51, 52, 53], [61, 62, 63, 64, 65], 0.6),
        make_row([71, 72, 73, 74, 75], [81, 82, 83, 84], 1.0),
    ]


def make_trainer(
    model: Any,
    rows: list[Row],
    tokenizer: Any,
    folder: Path,
    *,
    lora: dict[str, Any] | None = None,
    trainer_class: Any = None,
    collator: Any = None,
    callbacks: list[Any] | None = None,
    **settings: Any,
) -> Any:
    """Return a trainer on the CPU in float32, with one row order, no clipping and a constant learning rate."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback

    from presafe.alignment.trainer import PreSafeConfig, PreSafeTrainer

    arguments = PreSafeConfig(
        **{
            "output_dir": str(folder),
            "max_steps": 1,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "train_sampling_strategy": "sequential",
            "max_length": None,
            "bf16": False,
            "gradient_checkpointing": False,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "seed": 0,
            **settings,
        }
    )
    trainer = (trainer_class or PreSafeTrainer)(
        model,
        arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            **{"r": 8, "lora_alpha": 16, "target_modules": list(LORA_TARGETS), "task_type": "CAUSAL_LM"} | (lora or {})
        ),
        callbacks=callbacks,
        **({"data_collator": collator} if collator else {}),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def bare_model(model: Any) -> Any:
    """Return the causal language model inside a PEFT model, without its static type."""
    from presafe.alignment.head import causal_lm

    return causal_lm(model)


def head_of(model: Any) -> Any:
    """Return the head in use, without its static type."""
    from presafe.alignment.head import trained_head

    return trained_head(model)


def randomize_adapter(trainer: Any, seed: int = 5) -> None:
    """Move B and the head's bias away from 0, so that no term vanishes by accident."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name or ("presafe_head" in name and parameter.requires_grad):
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


def one_batch(trainer: Any, rows: list[Row]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return the rows as one batch of a whole step, and the number of its label tokens."""
    batch = trainer.data_collator(rows)
    batches, num_items = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return batches[0], num_items


@pytest.fixture(scope="session")
def libraries() -> None:
    """Import the libraries and hide them from the garbage collector, which would take a quarter second per training."""
    import presafe.alignment.export
    import presafe.alignment.fit
    import presafe.alignment.trainer  # noqa: F401

    gc.freeze()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Provide the byte-level tokenizer."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def renderer(tokenizer: Any) -> Renderer:
    """Provide SmolThink's renderer with the byte-level tokenizer."""
    return Renderer(tokenizer, families()["smolthink"])


@pytest.fixture
def rows() -> list[Row]:
    """Provide the four hand-made rows."""
    return make_rows()


@pytest.fixture(name="make_trainer")
def make_trainer_fixture(libraries: None, tokenizer: Any, tmp_path: Path) -> TrainerFactory:
    """Provide `make_trainer` with the byte-level tokenizer and a folder of the test."""

    def build(model: Any, rows: list[Row], **settings: Any) -> Any:
        return make_trainer(model, rows, tokenizer, tmp_path / "trainer", **settings)

    return build
