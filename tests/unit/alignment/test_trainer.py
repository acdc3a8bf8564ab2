"""Optimizer steps: what may change them (λ, the head's learning rate) and what may not (padding, batch split)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import Row, TrainerFactory, bare_model, head_of, make_model, one_batch, randomize_adapter
from tiny_training import FusedLoss
from transformers import TrainerCallback

from presafe.alignment.trainer import PreSafeCollator, PreSafeConfig, PreSafeTrainer
from presafe.errors import RecipeError, RunError

SHARED = (
    "max_steps",
    "per_device_train_batch_size",
    "learning_rate",
    "lr_scheduler_type",
    "max_grad_norm",
    "max_length",
    "bf16",
    "train_sampling_strategy",
    "gradient_checkpointing",
    "save_strategy",
    "report_to",
    "disable_tqdm",
    "seed",
)
"""Settings that our trainer and TRL's share."""


class Gradients(TrainerCallback):
    """Keeps the gradients of the first optimizer step."""

    def __init__(self) -> None:
        self.seen: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not self.seen:
            self.seen = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def trainable(trainer: Any) -> Any:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def one_step(
    make_model: Any, make_trainer: TrainerFactory, randomize_adapter: Any, rows: list[Row], **settings: Any
) -> Any:
    """Return gradient, log entry and weights of one step of SGD."""
    gradients = Gradients()
    trainer = make_trainer(make_model(), rows, optim="sgd", lambda_align=2.0, callbacks=[gradients], **settings)
    randomize_adapter(trainer)
    trainer.train()
    (entry,) = [entry for entry in trainer.state.log_history if "align_loss" in entry]
    return gradients.seen, entry, trainable(trainer)


@pytest.mark.parametrize(
    ("num_rows", "splits"),
    [
        (4, [(4, 1), (2, 2), (1, 4)]),  # 1×4, 2×2, 4×1
        (3, [(3, 1), (2, 2), (1, 3)]),  # 2 × 2 with three rows is a batch of 2 and a batch of 1
    ],
)
def test_batch_split_does_not_change_the_step(
    make_trainer: TrainerFactory, rows: list[Row], num_rows: int, splits: Any
) -> None:
    steps = [
        one_step(
            make_model,
            make_trainer,
            randomize_adapter,
            rows[:num_rows],
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
        )
        for size, accumulation in splits
    ]
    whole, whole_entry, whole_weights = steps[0]
    assert any(gradient.abs().max() > 1e-2 for gradient in whole.values())
    for gradients, entry, weights in steps[1:]:
        assert gradients.keys() == whole.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, whole[name], rtol=1e-5, atol=1e-6, msg=name)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, whole_weights[name], rtol=1e-6, atol=1e-6, msg=name)
        assert entry["align_loss"] == pytest.approx(whole_entry["align_loss"], rel=1e-6)
        assert entry["sft_loss"] == pytest.approx(whole_entry["sft_loss"], rel=1e-6)
        assert entry["loss"] == pytest.approx(whole_entry["loss"], rel=1e-6)


def test_batch_split_does_not_matter_without_loss_kwargs(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    # Some models declare that their forward takes no token count (Gemma 3, Qwen-VL): TRL then takes the mean of
    # the batches' means.
    def scales_nothing() -> Any:
        model = make_model()
        model.accepts_loss_kwargs = False
        return model

    steps = [
        one_step(
            scales_nothing,
            make_trainer,
            randomize_adapter,
            rows,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
        )
        for size, accumulation in ((4, 1), (2, 2))
    ]
    (whole, whole_entry, _), (halves, entry, _) = steps
    for name, gradient in halves.items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-5, atol=1e-6, msg=name)
    assert entry["loss"] == pytest.approx(whole_entry["loss"], rel=1e-6)


def test_logged_losses_add_up(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    _, entry, _ = one_step(
        make_model,
        make_trainer,
        randomize_adapter,
        rows,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
    )
    # λ = 2
    assert entry["loss"] == pytest.approx(entry["sft_loss"] + 2 * entry["align_loss"], rel=1e-6)


def test_adamw_step_is_the_same_at_4x1_and_2x2(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    after = []
    for size, accumulation in ((4, 1), (2, 2)):
        trainer = make_trainer(
            make_model(),
            rows,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            learning_rate=1e-3,
            max_grad_norm=1.0,
        )
        randomize_adapter(trainer)
        trainer.train()
        after.append(trainable(trainer))
    for name, weight in after[0].items():
        torch.testing.assert_close(after[1][name], weight, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize(("size", "accumulation"), [(4, 1), (1, 4)])
def test_padding_width_does_not_change_the_step(
    make_trainer: TrainerFactory, rows: list[Row], size: int, accumulation: int
) -> None:
    # The rows have 7, 8, 8 and 9 tokens: a batch is 9 columns wide, or 32.
    split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
    gradients, entry, _ = one_step(make_model, make_trainer, randomize_adapter, rows, **split)
    padded, padded_entry, _ = one_step(
        make_model,
        lambda model, rows, **settings: make_trainer(
            model, rows, collator=PreSafeCollator(pad_token_id=258, pad_to_multiple_of=32), **settings
        ),
        randomize_adapter,
        rows,
        **split,
    )
    for name, gradient in gradients.items():
        torch.testing.assert_close(padded[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
    assert padded_entry["loss"] == pytest.approx(entry["loss"], rel=1e-6)


def test_padding_side_does_not_change_the_loss(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    # The collator pads right. The same rows padded left by hand, decision positions moved by the padding.
    trainer = make_trainer(make_model(), rows)
    randomize_adapter(trainer)
    right, num_items = one_batch(trainer, rows)
    pads = [9 - len(row["input_ids"]) for row in rows]
    left = {
        "input_ids": [[258] * pad + row["input_ids"] for row, pad in zip(rows, pads, strict=True)],
        "attention_mask": [[0] * pad + [1] * (9 - pad) for pad in pads],
        "labels": [[-100] * pad + row["labels"] for row, pad in zip(rows, pads, strict=True)],
        "decision_index": [row["decision_index"] + pad for row, pad in zip(rows, pads, strict=True)],
    }
    batch_left = {name: torch.tensor(value) for name, value in left.items()} | {"signal": right["signal"]}
    losses = [
        trainer.compute_loss(trainer.model, batch, num_items_in_batch=num_items).item() for batch in (right, batch_left)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_adapter_with_zero_b_is_the_base(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    ids = torch.tensor([rows[2]["input_ids"]])
    with torch.no_grad():
        base = make_model()(ids).logits
        trainer = make_trainer(make_model(), rows)
        adapted = trainer.model.eval()(ids).logits
    assert torch.equal(adapted, base)


def test_training_changes_only_the_adapter(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    before = {name: weight.clone() for name, weight in make_model().state_dict().items()}
    trainer = make_trainer(make_model(), rows, max_steps=3)
    start = trainable(trainer)
    trainer.train()
    base = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): weight
        for name, weight in trainer.model.state_dict().items()
        if "lora_" not in name and "presafe_head" not in name
    }
    assert base.keys() == before.keys()
    assert all(torch.equal(base[name], weight) for name, weight in before.items())
    assert all(not torch.equal(weight, start[name]) for name, weight in trainable(trainer).items())
    # PEFT trains a copy of the head; the original stays as it was drawn.
    original = bare_model(trainer.model).presafe_head.original_module.weight
    assert not original.requires_grad
    assert torch.equal(original, start["base_model.model.presafe_head.modules_to_save.default.weight"])


def plain_sft(make_model: Any, make_trainer: TrainerFactory, rows: list[Row], tmp_path: Path, tokenizer: Any) -> Any:
    """Return the adapter after three steps of TRL's SFT trainer, without a head."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    ours = make_trainer(make_model(), rows, max_steps=3).args
    trainer = SFTTrainer(
        make_model(),
        SFTConfig(output_dir=str(tmp_path / "plain"), **{name: getattr(ours, name) for name in SHARED}),
        train_dataset=Dataset.from_list([{k: row[k] for k in ("input_ids", "labels")} for row in rows]),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"
        ),
    )
    trainer.train()
    return {name: weight for name, weight in trainable(trainer).items() if "lora_" in name}


def test_lambda_0_is_plain_sft(make_trainer: TrainerFactory, rows: list[Row], tmp_path: Path, tokenizer: Any) -> None:
    plain = plain_sft(make_model, make_trainer, rows, tmp_path, tokenizer)
    adapters = []
    for trainer_class in (FusedLoss, PreSafeTrainer):
        trainer = make_trainer(make_model(), rows, max_steps=3, lambda_align=0.0, trainer_class=trainer_class)
        trainer.train()
        adapters.append({name: weight for name, weight in trainable(trainer).items() if "lora_" in name})
    fused, columns = adapters
    assert plain.keys() == fused.keys() == columns.keys()
    for name, weight in plain.items():
        assert torch.equal(fused[name], weight), name  # the same arithmetic: bit for bit
        torch.testing.assert_close(columns[name], weight, rtol=0, atol=1e-5, msg=name)


def test_lambda_changes_the_adapter(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    # The same three steps with and without the auxiliary loss end in different adapters.
    after = []
    for lambda_align in (0.0, 1.0):
        trainer = make_trainer(make_model(), rows, max_steps=3, lambda_align=lambda_align)
        trainer.train()
        after.append(trainable(trainer))
    moved = [(after[1][name] - weight).abs().max().item() for name, weight in after[0].items() if "lora_B" in name]
    assert min(moved) > 1e-3


def test_head_only_decays_at_lambda_0(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    trainer = make_trainer(
        make_model(),
        rows,
        lambda_align=0.0,
        learning_rate=1e-2,
        head_learning_rate=None,  # in the adapter's group, which decays
        weight_decay=0.1,
        max_steps=3,
    )
    start = head_of(trainer.model).weight.detach().clone()
    trainer.train()
    head = head_of(trainer.model)
    # AdamW decays w by 1 − lr·decay = 1 − 0.01·0.1 = 0.999 a step; the bias is not decayed and starts at 0.
    torch.testing.assert_close(head.weight.detach(), start * 0.999**3, rtol=1e-6, atol=0)
    assert head.bias.item() == 0.0
    assert start.std().item() == pytest.approx(0.02, rel=0.5)


def test_head_depends_on_its_seed_alone(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    first = head_of(make_trainer(make_model(0), rows, seed=3).model).weight
    torch.manual_seed(99)
    again = head_of(make_trainer(make_model(1), rows, seed=3).model).weight
    other = head_of(make_trainer(make_model(0), rows, seed=4).model).weight
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("lambda_align", [-1, -1e-9, float("nan")])
def test_lambda_must_not_be_negative(tmp_path: Path, lambda_align: float) -> None:
    with pytest.raises(RecipeError, match="lambda_align"):
        PreSafeConfig(output_dir=str(tmp_path), bf16=False, lambda_align=lambda_align)


@pytest.mark.parametrize("setting", ["packing", "padding_free"])
def test_packing_and_padding_free_are_rejected(tmp_path: Path, setting: str) -> None:
    with pytest.raises(RecipeError, match="decision positions"):
        PreSafeConfig(output_dir=str(tmp_path), bf16=False, **dict[str, Any]({setting: True}))


@pytest.mark.parametrize(("setting", "value"), [("loss_type", "dft"), ("label_smoothing_factor", 0.1)])
def test_settings_that_change_the_sft_loss_are_rejected(tmp_path: Path, setting: str, value: Any) -> None:
    # Scoring label columns knows the next-token loss only: these would do nothing on a CPU.
    with pytest.raises(RecipeError, match=setting):
        PreSafeConfig(output_dir=str(tmp_path), bf16=False, **{setting: value})


@pytest.mark.parametrize("head_learning_rate", [None, 0.3])
def test_every_trainable_parameter_is_in_one_group(
    make_trainer: TrainerFactory, rows: list[Row], head_learning_rate: float | None
) -> None:
    trainer = make_trainer(make_model(), rows, head_learning_rate=head_learning_rate, learning_rate=1e-3)
    trainer.create_optimizer()
    groups = trainer.optimizer.param_groups
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(p) for p in trainer.model.parameters() if p.requires_grad)
    head = {id(parameter) for parameter in head_of(trainer.model).parameters()}
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert {rates[i] for i in head} == {head_learning_rate or 1e-3}
    assert {rates[i] for i in rates.keys() - head} == {1e-3}
    # asked again, it is the same optimizer: no group twice
    assert trainer.create_optimizer() is trainer.optimizer
    assert len(trainer.optimizer.param_groups) == len(groups)


def test_head_learning_rate_applies_to_the_head_only(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    gradients = Gradients()
    trainer = make_trainer(
        make_model(), rows, optim="sgd", learning_rate=1e-3, head_learning_rate=0.5, callbacks=[gradients]
    )
    start = trainable(trainer)
    trainer.train()
    for name, weight in trainable(trainer).items():
        rate = 0.5 if "presafe_head" in name else 1e-3
        # SGD: w − lr · gradient
        torch.testing.assert_close(weight, start[name] - rate * gradients.seen[name], rtol=1e-6, atol=1e-8, msg=name)


def test_diverged_training_fails(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    # Weights moved by 1e30 overflow within a step or two.
    trainer = make_trainer(make_model(), rows, learning_rate=1e30, head_learning_rate=None, max_steps=3)
    with pytest.raises(RunError, match=r"after step [12]: the training has diverged.*Lower the learning rate"):
        trainer.train()
