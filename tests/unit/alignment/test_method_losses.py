"""The loss terms that methods change: the gradient of a detached head, SafeKey's two means, R2D's contrast."""

from __future__ import annotations

from math import exp, log
from typing import Any

import pytest
import torch
from tiny_models import Row, TrainerFactory, bare_model, head_of, make_model, one_batch, randomize_adapter

from presafe.alignment.trainer import pooled_states
from presafe.models.decision_head import start_log_odds


def gradients(trainer: Any, batch: dict[str, torch.Tensor], count: Any) -> Any:
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, batch, num_items_in_batch=count).backward()
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


def test_detached_head_does_not_change_the_adapter_gradient(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    by_head: dict[tuple[str, float], dict[str, torch.Tensor]] = {}
    for head, weight in (("detached", 0.7), ("decision", 0.7), ("decision", 0.0)):
        trainer = make_trainer(make_model(), rows, lambda_align=weight, head=head)
        randomize_adapter(trainer)
        by_head[head, weight] = gradients(trainer, *one_batch(trainer, rows))
    detached, attached, without = by_head["detached", 0.7], by_head["decision", 0.7], by_head["decision", 0.0]
    adapter = [name for name in detached if "lora" in name]
    assert len(adapter) == 2 * 2 * 3  # A and B, two layers, three matrices
    assert all(torch.equal(detached[name], without[name]) for name in adapter)
    assert all(not torch.equal(attached[name], without[name]) for name in adapter)
    (weight_name,) = [name for name in detached if "presafe_head" in name and "weight" in name]
    assert torch.equal(detached[weight_name], attached[weight_name])
    assert detached[weight_name].abs().max() > 0


def test_pooled_states_by_hand() -> None:
    # One state a position: 1, 2, 4, 8, 16. Prompt 0 to 1, first sentences 2 to 3:
    # over both (1 + 2 + 4 + 8) / 4 = 3.75, over the sentences (4 + 8) / 2 = 6.
    # Without sentences (end = decision = 1): (1 + 2) / 2 = 1.5, and the decision position alone, 2.
    states = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])[None, :, None].repeat(2, 1, 1)
    through, thought = pooled_states(states, torch.tensor([1, 1]), torch.tensor([3, 1]))
    assert through.squeeze(-1).tolist() == [3.75, 1.5]
    assert thought.squeeze(-1).tolist() == [6.0, 2.0]


def test_safekey_loss_is_the_bce_of_both_heads(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    pooled = [row | {"signal": float(i % 2), "pool_index": row["decision_index"] + 2} for i, row in enumerate(rows)]
    trainer = make_trainer(make_model(), pooled, lambda_align=0.2, head="pooled")
    randomize_adapter(trainer)
    batch, count = one_batch(trainer, pooled)
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=count).item()
    head = head_of(trainer.model)
    assert head.weight.shape == (2, 32)
    by_hand = 0.0
    for row in pooled:
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            states = bare_model(trainer.model).base_model(ids).last_hidden_state[0]
        end, decision = row["pool_index"] + 1, row["decision_index"] + 1
        for number, mean in enumerate((states[:end].mean(0), states[decision:end].mean(0))):
            s = 1 / (1 + exp(-(head.weight[number] @ mean + head.bias[number]).item()))
            by_hand -= log(s) if row["signal"] == 1 else log(1 - s)
    sft = trainer._metrics["train"]["sft_loss"][-1]
    assert trainer._metrics["train"]["align_loss"][-1] == pytest.approx(by_hand / 4, abs=1e-5)
    assert loss - sft == pytest.approx(0.2 * by_hand / 4, abs=1e-5)


def test_contrast_by_hand() -> None:
    # Logits 2, −1 and 5 of unsafe, safe and another word: ln P(unsafe) − ln P(safe) = 2 − (−1) = 3, whatever the other.
    logits = torch.tensor([[2.0, -1.0, 5.0]])
    assert start_log_odds(logits, 0, 1).item() == pytest.approx(3.0)
    assert start_log_odds(logits, 1, 0).item() == pytest.approx(-3.0)


def test_r2d_loss_contrasts_the_right_pivot_with_the_other(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    unsafe, safe = 200, 201
    pivoted = [row | {"signal": float(i % 2), "start_index": row["decision_index"] + 1} for i, row in enumerate(rows)]
    trainer = make_trainer(
        make_model(), pivoted, lambda_align=0.0, lambda_start=1.0, refusal_start_id=unsafe, contrast_id=safe
    )
    randomize_adapter(trainer)
    batch, count = one_batch(trainer, pivoted)
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=count).item()
    by_hand = 0.0
    for row in pivoted:
        with torch.no_grad():
            p = bare_model(trainer.model)(torch.tensor([row["input_ids"]])).logits[0, row["start_index"]].softmax(-1)
        right, wrong = (unsafe, safe) if row["signal"] == 1 else (safe, unsafe)
        by_hand -= log(1 / (1 + exp(-(log(p[right].item()) - log(p[wrong].item())))))
    sft = trainer._metrics["train"]["sft_loss"][-1]
    assert loss - sft == pytest.approx(by_hand / 4, abs=1e-5)
