"""Tiny models, a byte-level tokenizer and hand-made rows: a training step takes milliseconds."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import pytest

from presafe.models.family import families
from presafe.models.loading import smolthink_adapter
from presafe.models.rendering import Renderer

LORA_TARGETS = ["q_proj", "v_proj", "down_proj"]


def make_tokenizer():
    """Every byte a token, plus ChatML's marks: 260 tokens."""
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


def make_model(seed: int = 0, *, vocab_size: int = 260):
    """A random Llama: 2 layers, hidden size 32; weights wide enough that its logits differ."""
    import torch
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


def make_row(prompt: list[int], completion: list[int], signal: float) -> dict:
    """A row whose last prompt token is the decision position."""
    return {
        "input_ids": prompt + completion,
        "labels": [-100] * len(prompt) + completion,
        "decision_index": len(prompt) - 1,
        "signal": signal,
    }


def make_rows() -> list[dict]:
    """Four rows of 7, 8, 8 and 9 tokens, with 3, 2, 5 and 4 label tokens: 14 together."""
    return [
        make_row([11, 12, 13, 14], [21, 22, 23], 0.9),
        make_row([31, 32, 33, 34, 35, 36], [41, 42], 0.1),
        make_row([51, 52, 53], [61, 62, 63, 64, 65], 0.6),
        make_row([71, 72, 73, 74, 75], [81, 82, 83, 84], 1.0),
    ]


def make_trainer(
    model, rows, tokenizer, folder, *, lora=None, trainer_class=None, collator=None, callbacks=None, **settings
):
    """A trainer on the CPU in float32, one row order, no clipping, constant learning rate."""
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


def randomise_adapter(trainer, seed: int = 5):
    """Move B away from 0 and the head's bias too, so that nothing vanishes by accident."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name or ("presafe_head" in name and parameter.requires_grad):
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


def one_batch(trainer, rows):
    """The rows as one batch of a whole step, and the number of its label tokens."""
    batch = trainer.data_collator(rows)
    batches, num_items = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return batches[0], num_items


@pytest.fixture(scope="session")
def libraries():
    """Imported and out of the garbage collector's way: each training collects garbage, a quarter of a second."""
    import presafe.alignment.export
    import presafe.alignment.fit
    import presafe.alignment.trainer  # noqa: F401

    gc.freeze()


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def renderer(tokenizer):
    return Renderer(tokenizer, families()["smolthink"])


@pytest.fixture(name="make_model", scope="session")
def make_model_fixture():
    return make_model


@pytest.fixture
def rows():
    return make_rows()


@pytest.fixture(name="make_trainer")
def make_trainer_fixture(libraries, tokenizer, tmp_path):
    def build(model, rows, **settings):
        return make_trainer(model, rows, tokenizer, tmp_path / "trainer", **settings)

    return build


@pytest.fixture(name="one_batch", scope="session")
def one_batch_fixture():
    return one_batch


@pytest.fixture(name="randomise_adapter", scope="session")
def randomise_adapter_fixture():
    return randomise_adapter
