"""L_start: the soft decision as a loss on the next token, either the start of a refusal or of the row's own thought."""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import Row, TrainerFactory, bare_model, make_model, one_batch, randomize_adapter

from presafe.alignment.loss import start_loss
from presafe.alignment.trainer import PreSafeConfig
from presafe.errors import RecipeError, SignalError
from presafe.models.decision_head import start_log_odds

TOKEN = 200
"""Stand-in for the first token of a refusal."""


@pytest.fixture
def start_rows(rows: list[Row]) -> Any:
    """Return the rows; in two of them the model opens the thought itself, and the last is a refusal."""
    placed = [
        row | {"start_index": row["decision_index"] + opened} for row, opened in zip(rows, (0, 1, 0, 1), strict=True)
    ]
    ids, after = placed[3]["input_ids"], placed[3]["start_index"] + 1
    placed[3] |= {"input_ids": [*ids[:after], TOKEN, *ids[after + 1 :]]}
    return placed


def test_log_odds_by_hand() -> None:
    # softmax(ln 3, 0, 0) = (3/5, 1/5, 1/5): odds of the first 3/5 : 2/5 = 3/2, of the second 1/5 : 4/5 = 1/4.
    logits = torch.tensor([[log(3), 0.0, 0.0]])
    assert start_log_odds(logits, 0).item() == pytest.approx(log(3 / 2), abs=1e-6)
    assert start_log_odds(logits, 1).item() == pytest.approx(log(1 / 4), abs=1e-6)


def test_log_odds_are_finite_if_p_rounds_to_1() -> None:
    # Odds e^200 : 2, so ln of them is 200 − ln 2, though P itself is 1.0 in float64.
    logits = torch.tensor([[200.0, 0.0, 0.0]], dtype=torch.float64)
    assert start_log_odds(logits, 0).item() == pytest.approx(200 - log(2))


def test_start_loss_by_hand() -> None:
    # P = softmax(ln 6, ln 3, 0) = (.6, .3, .1) in both rows, r = 0.
    # Own thought starts with 1: −.25 ln .6 − .75 ln .3. A refusal itself: −.25 ln .6 − .75 ln(1 − .6).
    logits = torch.tensor([[log(6), log(3), 0.0]] * 2, dtype=torch.float64)
    own, targets = torch.tensor([1, 0]), torch.tensor([0.25, 0.25], dtype=torch.float64)
    thought, refusal = -0.25 * log(0.6) - 0.75 * log(0.3), -0.25 * log(0.6) - 0.75 * log(0.4)
    assert start_loss(logits[:1], 0, own[:1], targets[:1]).item() == pytest.approx(thought)
    assert start_loss(logits, 0, own, targets).item() == pytest.approx(thought + refusal)


def test_start_loss_is_finite_if_p_rounds_to_1() -> None:
    # A refusal with p′ = 0 whose P(r) is 1 in float32: −ln(1 − P) = 200 − ln 2.
    logits = torch.tensor([[200.0, 0.0, 0.0]])
    assert start_loss(logits, 0, torch.tensor([0]), torch.tensor([0.0])).item() == pytest.approx(200 - log(2))


def test_start_loss_lowers_other_tokens() -> None:
    # p′ = 0: the gradient on the logits is P − onehot(y), so the third word falls, though it is no refusal.
    logits = torch.zeros(1, 3, requires_grad=True)
    torch.autograd.backward(start_loss(logits, 0, torch.tensor([1]), torch.tensor([0.0])))
    torch.testing.assert_close(logits.grad, torch.tensor([[1 / 3, -2 / 3, 1 / 3]]))


def test_loss_adds_lambda_start_times_mean_start_loss(make_trainer: TrainerFactory, start_rows: list[Row]) -> None:
    without = make_trainer(make_model(), start_rows, lambda_align=0.5)
    trainer = make_trainer(make_model(), start_rows, lambda_align=0.5, lambda_start=3.0, refusal_start_id=TOKEN)
    losses = []
    for learner in (without, trainer):
        randomize_adapter(learner)
        batch, count = one_batch(learner, start_rows)
        losses.append(learner.compute_loss(learner.model, batch, num_items_in_batch=count).item())
    by_hand = []
    for row in start_rows:
        with torch.no_grad():
            words = bare_model(trainer.model)(torch.tensor([row["input_ids"]])).logits[0, row["start_index"]]
        own = row["input_ids"][row["start_index"] + 1]
        p = words.double().softmax(-1)
        other = 1 - p[TOKEN] if own == TOKEN else p[own]
        by_hand.append(-row["signal"] * log(p[TOKEN]) - (1 - row["signal"]) * log(other))
    assert [row["input_ids"][row["start_index"] + 1] == TOKEN for row in start_rows] == [False, False, False, True]
    mean = sum(by_hand) / 4
    assert trainer._metrics["train"]["start_loss"] == [pytest.approx(mean, abs=1e-5)]
    assert losses[1] - losses[0] == pytest.approx(3 * mean, abs=1e-5)
    assert "start_loss" not in without._metrics["train"]


def test_row_without_signal_has_next_token_loss_only(make_trainer: TrainerFactory, start_rows: list[Row]) -> None:
    def loss(rows: list[Row], **lambdas: float) -> Any:
        trainer = make_trainer(make_model(), rows, refusal_start_id=TOKEN, **lambdas)
        randomize_adapter(trainer)
        batch, count = one_batch(trainer, rows)
        total = trainer.compute_loss(trainer.model, batch, num_items_in_batch=count).item()
        return total, {name: values[0] for name, values in trainer._metrics["train"].items()}

    without = [*start_rows[:3], start_rows[3] | {"signal": None}]
    total, parts = loss(without, lambda_align=2.0, lambda_start=3.0)
    whole, _ = loss(without, lambda_align=0.0)  # every row's labels
    _, three = loss(start_rows[:3], lambda_align=2.0, lambda_start=3.0)  # means over the three that have a p′
    assert parts["align_loss"] == pytest.approx(three["align_loss"], abs=1e-5)
    assert parts["start_loss"] == pytest.approx(three["start_loss"], abs=1e-5)
    assert total == pytest.approx(whole + 2 * three["align_loss"] + 3 * three["start_loss"], abs=1e-4)
    # a step of such rows only
    none, parts = loss([row | {"signal": None} for row in start_rows], lambda_align=2.0, lambda_start=3.0)
    assert (parts["align_loss"], parts["start_loss"]) == (0.0, 0.0)
    assert none == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("head", ["decision", "pooled"])
def test_row_without_signal_has_the_gradient_of_its_labels(
    make_trainer: TrainerFactory, start_rows: list[Row], head: Any
) -> None:
    """Compare two passes, of one row with a p′ and of two rows of which one has none, with one pass of all three."""
    rows = [row | {"pool_index": row["start_index"]} for row in start_rows[:3]]
    rows[1] |= {"signal": None}

    def gradients(*passes: Any) -> Any:
        trainer = make_trainer(make_model(), rows, lambda_align=2.0, head=head)
        randomize_adapter(trainer)
        trainer.model.train()
        batches = [trainer.data_collator(rows_of_pass) for rows_of_pass in passes]
        batches, count = trainer.get_batch_samples(iter(batches), len(batches), trainer.args.device)
        trainer.current_gradient_accumulation_steps = len(batches)
        for batch in batches:
            trainer.compute_loss(trainer.model, batch, num_items_in_batch=count).backward()
        return {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}

    at_once, apart = gradients(rows), gradients(rows[:1], rows[1:])
    assert at_once.keys() == apart.keys()
    assert any(grad.abs().max() > 1e-4 for grad in at_once.values())
    for name, grad in at_once.items():
        assert grad.isfinite().all(), name
        torch.testing.assert_close(apart[name], grad, atol=1e-5, rtol=1e-4)


def test_gradient_comes_from_the_start_position_only(make_trainer: TrainerFactory, start_rows: list[Row]) -> None:
    trainer = make_trainer(make_model(), start_rows, lambda_start=1.0, refusal_start_id=TOKEN)
    randomize_adapter(trainer)
    batch, count = one_batch(trainer, start_rows)
    states = []

    def keep(module: Any, args: Any, output: Any) -> None:
        output.last_hidden_state.retain_grad()
        states.append(output.last_hidden_state)

    handle = bare_model(trainer.model).base_model.register_forward_hook(keep, prepend=True)
    trainer.compute_loss(trainer.model, batch, num_items_in_batch=count)
    handle.remove()
    rows, start = torch.arange(4), batch["start_index"]
    logits = bare_model(trainer.model).lm_head(states[0])[rows, start].float()
    torch.autograd.backward(start_loss(logits, TOKEN, batch["input_ids"][rows, start + 1], batch["signal"]))
    touched = {tuple(where) for where in (states[0].grad.abs().sum(-1) > 0).nonzero().tolist()}
    # Decision positions 3, 5, 2, 4, and one further where the model opens its thought itself.
    assert touched == {(0, 3), (1, 6), (2, 2), (3, 5)}
    assert any(
        parameter.grad is not None and parameter.grad.abs().max() > 1e-6
        for name, parameter in trainer.model.named_parameters()
        if "lora" in name
    )


def test_rows_learn_to_start_a_refusal_or_not(make_trainer: TrainerFactory, start_rows: list[Row]) -> None:
    # The first row goes on with 21, the second does not.
    pair = [start_rows[0] | {"signal": 1.0}, start_rows[1] | {"signal": 0.0}]

    def odds_after(lambda_start: float) -> Any:
        trainer = make_trainer(
            make_model(), pair * 20, lambda_align=0.0, lambda_start=lambda_start, refusal_start_id=21, max_steps=20,
            per_device_train_batch_size=2, learning_rate=3e-3,
        )  # fmt: skip
        trainer.train()
        with torch.no_grad():
            words = [trainer.model(torch.tensor([row["input_ids"]])).logits[:, row["start_index"]] for row in pair]
        return [start_log_odds(word, 21).item() for word in words]

    # By a factor e, both ways, against the next-token loss alone.
    (refused, answered), (refused_without, answered_without) = odds_after(5.0), odds_after(0.0)
    assert refused > refused_without + 1
    assert answered < answered_without - 1


def test_start_loss_needs_start_index(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    trainer = make_trainer(make_model(), rows, lambda_start=1.0, refusal_start_id=TOKEN)
    batch, count = one_batch(trainer, rows)
    with pytest.raises(SignalError, match="start_index"):
        trainer.compute_loss(trainer.model, batch, num_items_in_batch=count)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"lambda_start": -0.1}, "lambda_start"), ({"lambda_start": 1.0}, "refusal_start_id")],
)
def test_settings_without_effect_fail(tmp_path: Path, settings: Any, named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        PreSafeConfig(output_dir=str(tmp_path), bf16=False, **settings)
