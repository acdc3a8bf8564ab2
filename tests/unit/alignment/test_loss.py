"""The losses by hand, and the gradient that the decision sends into the adapter."""

from __future__ import annotations

from math import exp, log
from typing import Any

import pytest
import torch
from tiny_models import Row, TrainerFactory, bare_model, head_of, make_model, one_batch, randomize_adapter
from trl import SFTTrainer

from presafe.alignment.loss import alignment_loss, next_token_loss
from presafe.alignment.trainer import PreSafeCollator


def bce(z: float, target: float) -> float:
    """Return −p′ ln p − (1 − p′) ln(1 − p), with p = 1 / (1 + e^−z) written out."""
    p = 1 / (1 + exp(-z))
    return -target * log(p) - (1 - target) * log(1 - p)


def test_alignment_loss_by_hand() -> None:
    # z = 0        p = 1/2   p' = 0.3   −0.3 ln ½ − 0.7 ln ½         = ln 2           = 0.693147
    # z = ln 3     p = 3/4   p' = 0.25  −0.25 ln ¾ − 0.75 ln ¼       = 0.0719 + 1.0397 = 1.111641
    # z = −ln 4    p = 1/5   p' = 1     −ln 1/5                      = ln 5           = 1.609438
    logits = torch.tensor([0.0, log(3), -log(4)])
    loss = alignment_loss(logits, torch.tensor([0.3, 0.25, 1.0]))
    by_hand = log(2) + (0.25 * log(4 / 3) + 0.75 * log(4)) + log(5)
    assert by_hand == pytest.approx(0.693147 + 1.111641 + 1.609438, abs=2e-6)
    assert loss.item() == pytest.approx(by_hand, abs=1e-6)


def test_alignment_loss_is_finite_if_p_rounds_to_1() -> None:
    # z = 200, p' = 0: −ln(1 − σ(200)) = ln(1 + e^200) = 200; σ(200) itself is 1.0 in float32.
    assert alignment_loss(torch.tensor([200.0]), torch.tensor([0.0])).item() == pytest.approx(200)


def test_alignment_loss_casts_its_targets() -> None:
    # float64 targets, as Python numbers give them: BCE(z = 0, any p') = ln 2.
    loss = alignment_loss(torch.zeros(2), torch.tensor([0.1, 0.8], dtype=torch.float64))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(2 * log(2), abs=1e-6)


def test_next_token_loss_by_hand() -> None:
    # One row, three columns, two tokens. softmax(ln 3, 0) = (3/4, 1/4); softmax(0, 0) = (1/2, 1/2).
    # Labels 0, −100, 1:  −ln 3/4  +  nothing  −  ln 1/2  =  ln(4/3) + ln 2  =  ln(8/3)
    logits = torch.tensor([[[log(3), 0.0], [50.0, -50.0], [0.0, 0.0]]])
    loss = next_token_loss(logits, torch.tensor([[0, -100, 1]]))
    assert loss.item() == pytest.approx(log(8 / 3), abs=1e-6)


def test_next_token_loss_without_labels_is_zero() -> None:
    assert next_token_loss(torch.randn(2, 3, 5), torch.full((2, 3), -100)).item() == 0.0
    assert next_token_loss(torch.randn(2, 0, 5), torch.empty(2, 0, dtype=torch.long)).item() == 0.0


def test_collator_pads_right_and_keeps_positions(rows: list[Row]) -> None:
    batch = PreSafeCollator(pad_token_id=258)(rows[:2])
    # 7 and 8 tokens: the first row gets one pad, after its last token.
    assert batch["input_ids"].tolist() == [
        [11, 12, 13, 14, 21, 22, 23, 258],
        [31, 32, 33, 34, 35, 36, 41, 42],
    ]
    assert batch["attention_mask"].tolist() == [[1] * 7 + [0], [1] * 8]
    assert batch["labels"].tolist() == [
        [-100, -100, -100, -100, 21, 22, 23, -100],
        [-100, -100, -100, -100, -100, -100, 41, 42],
    ]
    assert batch["decision_index"].tolist() == [3, 5]  # the tokens 14 and 36, the last of each prompt
    assert batch["signal"].tolist() == pytest.approx([0.9, 0.1])


def loss_by_hand(trainer: Any, rows: list[Row], lambda_align: float) -> Any:
    """Return the NLL by transformers' own labels loss, the mean BCE of single rows without padding, and the total."""
    model, head = bare_model(trainer.model), head_of(trainer.model)
    batch = PreSafeCollator(pad_token_id=258)(rows)
    with torch.no_grad():
        nll = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]
        ).loss.item()
        decisions = []
        for row in rows:
            hidden = model.base_model(torch.tensor([row["input_ids"]])).last_hidden_state[0]
            z = head.weight[0] @ hidden[row["decision_index"]] + head.bias[0]
            decisions.append(bce(z.item(), row["signal"]))
    return nll, sum(decisions) / len(rows), nll + lambda_align * sum(decisions) / len(rows)


@pytest.mark.parametrize("lambda_align", [0.0, 0.2, 3.0])
def test_loss_is_nll_plus_lambda_times_mean_bce(
    make_trainer: TrainerFactory, rows: list[Row], lambda_align: float
) -> None:
    trainer = make_trainer(make_model(), rows, lambda_align=lambda_align)
    randomize_adapter(trainer)
    batch, num_items = one_batch(trainer, rows)
    assert int(num_items) == 14  # 3 + 2 + 5 + 4 label tokens
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=num_items)
    nll, mean_bce, total = loss_by_hand(trainer, rows, lambda_align)
    assert loss.item() == pytest.approx(total, abs=1e-6)
    assert trainer._metrics["train"]["sft_loss"] == [pytest.approx(nll, abs=1e-6)]
    assert trainer._metrics["train"]["align_loss"] == [pytest.approx(mean_bce, abs=1e-6)]


def test_evaluation_loss_is_the_batch_mean(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    from datasets import Dataset

    trainer = make_trainer(make_model(), rows, lambda_align=2.0, per_device_eval_batch_size=4)
    randomize_adapter(trainer)
    metrics = trainer.evaluate(Dataset.from_list(rows))
    nll, mean_bce, total = loss_by_hand(trainer, rows, 2.0)
    logged = trainer.state.log_history[-1]
    assert metrics["eval_loss"] == pytest.approx(total, abs=1e-6)
    assert logged["eval_sft_loss"] == pytest.approx(nll, abs=1e-6)
    assert logged["eval_align_loss"] == pytest.approx(mean_bce, abs=1e-6)


@pytest.mark.parametrize("num_items", ["whole step", None])
def test_column_loss_equals_trl_fused_loss(make_trainer: TrainerFactory, rows: list[Row], num_items: Any) -> None:
    trainer = make_trainer(make_model(), rows)
    randomize_adapter(trainer)
    batch, step_count = one_batch(trainer, rows)
    count = step_count if num_items else None
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]

    ours = trainer._sft_loss(trainer.model, dict(inputs), False, count)
    our_gradients = torch.autograd.grad(ours, parameters, allow_unused=True)
    theirs = SFTTrainer.compute_loss(trainer, trainer.model, dict(inputs), num_items_in_batch=count)
    their_gradients = torch.autograd.grad(theirs, parameters, allow_unused=True)

    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    compared = 0
    for mine, other in zip(our_gradients, their_gradients, strict=True):
        assert (mine is None) == (other is None)  # the head takes no part in L_SFT
        if mine is not None:
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
            compared += 1
    assert compared == 2 * 2 * 3  # A and B of 3 targets in 2 layers


@pytest.mark.parametrize("kind", ["Mixtral", "GraniteMoe"])
def test_router_loss_of_mixture_of_experts_is_kept(make_trainer: TrainerFactory, rows: list[Row], kind: str) -> None:
    # Granite failed first: TRL reads `num_experts`, which its configuration does not have.
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
        output_router_logits=True,
        router_aux_loss_coef=0.5,
    )
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    trainer = make_trainer(model, rows, lora={"target_modules": ["q_proj", "v_proj"]})
    batch, count = one_batch(trainer, rows)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    with torch.no_grad():
        ours = trainer._sft_loss(trainer.model, dict(inputs), False, count).item()
        # transformers' own: mean NLL + 0.5 · the router's loss
        theirs = trainer.model(**inputs).loss.item()
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_batch_without_labels_has_zero_loss_with_gradient(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    trainer = make_trainer(make_model(), rows, lambda_align=0.0)
    for row in rows:
        row["labels"] = [-100] * len(row["input_ids"])
    batch, num_items = one_batch(trainer, rows)
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=num_items)
    loss.backward()
    assert loss.item() == 0.0
    assert all(not p.grad.any() for p in trainer.model.parameters() if p.grad is not None)


def watch_hidden_states(trainer: Any) -> Any:
    """Return a list that collects the decoder's output of every later forward, with its gradient."""
    seen = []

    def keep(module: Any, args: Any, output: Any) -> None:
        output.last_hidden_state.retain_grad()
        seen.append(output.last_hidden_state)

    bare_model(trainer.model).base_model.register_forward_hook(keep)
    return seen


def align_backward(trainer: Any, one_batch: Any, rows: list[Row], lambda_align: float = 1.0) -> Any:
    """Run the backward pass of λ · L_align alone: without labels L_SFT is 0."""
    for row in rows:
        row["labels"] = [-100] * len(row["input_ids"])
    batch, num_items = one_batch(trainer, rows)
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=num_items)
    loss.backward()
    return batch


def test_bce_gradient_is_at_the_decision_position_only(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    trainer = make_trainer(make_model(), rows, lambda_align=0.5)
    randomize_adapter(trainer)
    seen = watch_hidden_states(trainer)
    batch = align_backward(trainer, one_batch, rows)
    (hidden,) = seen
    head = head_of(trainer.model)
    where = batch["decision_index"]
    with torch.no_grad():
        at_decision = hidden[torch.arange(4), where]
        p = torch.sigmoid(at_decision @ head.weight[0] + head.bias[0])
        # d/dh of λ/M Σ BCE(σ(w·h + b), p') = λ/M (p − p') w, here λ = 1/2 and M = 4.
        by_hand = 0.5 / 4 * (p - batch["signal"])[:, None] * head.weight
    torch.testing.assert_close(hidden.grad[torch.arange(4), where], by_hand, rtol=1e-5, atol=1e-7)
    elsewhere = torch.ones(hidden.shape[:2], dtype=torch.bool)
    elsewhere[torch.arange(4), where] = False
    assert not hidden.grad[elsewhere].any()
    # and in φ: d/dw = λ/M Σ (p − p') h,  d/db = λ/M Σ (p − p')
    weight_by_hand = 0.5 / 4 * ((p - batch["signal"])[:, None] * at_decision).sum(0)
    torch.testing.assert_close(head.weight.grad[0], weight_by_hand, rtol=1e-5, atol=1e-6)
    assert head.bias.grad.item() == pytest.approx(0.125 * (p - batch["signal"]).sum().item(), rel=1e-5)


def test_bce_gradient_reaches_only_the_adapter(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    trainer = make_trainer(make_model(), rows)
    randomize_adapter(trainer)
    align_backward(trainer, one_batch, rows)
    adapted = 0
    for name, parameter in trainer.model.named_parameters():
        if "lora_" in name:
            assert parameter.grad.any(), name
            adapted += 1
        elif "modules_to_save" not in name:
            assert parameter.grad is None, name
            assert not parameter.requires_grad, name
    assert adapted == 12


def test_only_b_has_a_gradient_at_the_start(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    # W + BA: dL/dA = Bᵀ·dL/dW = 0 while B = 0, and dL/dB = dL/dW·Aᵀ is not.
    trainer = make_trainer(make_model(), rows)
    align_backward(trainer, one_batch, rows)
    for name, parameter in trainer.model.named_parameters():
        if "lora_A" in name:
            assert not parameter.grad.any(), name
        if "lora_B" in name:
            assert parameter.grad.any(), name


def test_decision_does_not_see_the_completion(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    trainer = make_trainer(make_model(), rows)
    randomize_adapter(trainer)
    noted = []
    for completion in (9, 200):
        other = [
            {
                **row,
                "input_ids": [
                    token if i <= row["decision_index"] else completion for i, token in enumerate(row["input_ids"])
                ],
            }
            for row in rows
        ]
        batch, num_items = one_batch(trainer, other)
        trainer.compute_loss(trainer.model, batch, num_items_in_batch=num_items)
        noted += trainer._metrics["train"].pop("align_loss")
    assert noted[0] == pytest.approx(noted[1], abs=1e-6)


def test_gradient_checkpointing_gives_the_same_gradients(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    gradients = []
    for checkpointing in (False, True):
        trainer = make_trainer(make_model(), rows, gradient_checkpointing=checkpointing)
        if checkpointing:
            trainer.model.gradient_checkpointing_enable()
        randomize_adapter(trainer)
        batch, num_items = one_batch(trainer, rows)
        assert bare_model(trainer.model).is_gradient_checkpointing is checkpointing
        trainer.compute_loss(trainer.model, batch, num_items_in_batch=num_items).backward()
        gradients.append([p.grad for p in trainer.model.parameters() if p.requires_grad])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-7)
