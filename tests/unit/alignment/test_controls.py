"""Controls and baselines: constant and flipped labels, the weighted deciding token, and the adapter of rank 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import make_model
from tiny_training import SETTINGS, fit_rows

from presafe.alignment.fit import FitSettings, fit
from presafe.alignment.labels import labels_of
from presafe.alignment.loss import start_loss
from presafe.alignment.scale import trained_alpha
from presafe.config.recipe import AlignSettings
from presafe.methods.baselines import MIDDLE_RANK_1
from presafe.methods.registry import training_of
from presafe.models.rendering import Renderer
from presafe.records import Signal

SIGNALS = {str(i): Signal(prompt_id=str(i), probability=p) for i, p in enumerate([0.9] * 8 + [0.1] * 12)}


def test_constant_labels_are_the_base_rate() -> None:
    # (8 · 0.9 + 12 · 0.1) / 20 = 0.42
    found = labels_of([], SIGNALS, "constant", seed=0)
    assert found.keys() == SIGNALS.keys()
    assert {round(signal.probability, 9) for signal in found.values()} == {0.42}


@pytest.mark.parametrize(("labels", "num_flipped"), [("flipped_10", 2), ("flipped_25", 5)])
def test_flipped_labels_turn_a_share_round(labels: str, num_flipped: int) -> None:
    found = labels_of([], SIGNALS, labels, seed=1)  # type: ignore[arg-type]
    changed = [i for i in SIGNALS if found[i] != SIGNALS[i]]
    assert len(changed) == num_flipped
    assert all(found[i].probability == pytest.approx(1 - SIGNALS[i].probability) for i in changed)
    assert found != labels_of([], SIGNALS, labels, seed=2)  # type: ignore[arg-type]


def test_weighted_token_loss_is_that_of_the_token() -> None:
    # With labels of 0 and 1, L_start is −ln P of each row's next token: a refusal's r (2), and a thought's token 5.
    training = training_of("sft_weighted")
    assert (training.labels, training.start, training.head) == ("dataset", True, None)
    logits = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    own = torch.tensor([2, 5])
    by_hand = -logits.log_softmax(-1)[torch.arange(2), own].sum()
    torch.testing.assert_close(start_loss(logits, 2, own, torch.tensor([1.0, 0.0])), by_hand)


def test_rank_1_lies_in_the_middle_third() -> None:
    assert MIDDLE_RANK_1.layers(30) == list(range(10, 20))
    assert MIDDLE_RANK_1.layers(2) == [1]
    # alpha / rank stays: 32 / 16 = 2 / 1
    assert trained_alpha(AlignSettings(), MIDDLE_RANK_1) == 2
    assert trained_alpha(AlignSettings(), None) == 32


def test_rank_1_trains_one_matrix_a_block(libraries: None, renderer: Renderer, tmp_path: Path) -> None:
    settings = FitSettings(
        align=SETTINGS.model_copy(update={"max_steps": 1}),
        lambda_align=0.0,
        seed=0,
        folder=tmp_path,
        label="tiny",
        base_model="mine/tiny",
        adapter=MIDDLE_RANK_1,
    )
    fit(make_model(), renderer, fit_rows(), settings)
    weights = load_file(str(tmp_path / "adapter" / "adapter_model.safetensors"))
    block = "base_model.model.model.layers.1.mlp.up_proj"
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        f"{block}.lora_A.weight": (1, 32),
        f"{block}.lora_B.weight": (64, 1),
    }
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"]) == (1, 2)
