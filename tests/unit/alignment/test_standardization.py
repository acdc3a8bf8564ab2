"""The head reads a standardized state: the statistics, the clipping, and how well a head fitted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import Row, TrainerFactory, head_of, make_model
from tiny_training import SETTINGS, fit_rows

from presafe.alignment.fit import FitSettings, fit, head_fit
from presafe.alignment.loss import signal_entropy
from presafe.alignment.standardization import mean_and_deviation, prompts_in_batches
from presafe.config.recipe import AlignSettings
from presafe.errors import RunError
from presafe.models.rendering import Renderer
from presafe.records import HeadFit, HistoryPoint
from presafe.runs.io import read_json, read_jsonl


def test_mean_and_deviation_by_hand() -> None:
    # Columns (1, 3) and (10, 10): means 2 and 10, deviations 1 and 0. The mean deviation is ½, so the least is 0.005.
    mean, deviation = mean_and_deviation(torch.tensor([[1.0, 10.0], [3.0, 10.0]]))
    assert mean.tolist() == [2.0, 10.0]
    assert deviation.tolist() == pytest.approx([1.0, 0.005])
    mean, deviation = mean_and_deviation(torch.tensor([[4.0, 5.0]]))
    assert (mean.tolist(), deviation.tolist()) == ([4.0, 5.0], [1.0, 1.0])


def test_prompts_are_read_once_and_cut() -> None:
    row = {"input_ids": [1, 2, 3, 4], "decision_index": 1, "thought_index": 2, "signal": 0.5}
    rows = [row, {**row, "input_ids": [1, 2, 9, 9]}, {**row, "input_ids": [5, 6, 7]}, {**row, "signal": None}]
    assert [[found["input_ids"] for found in batch] for batch in prompts_in_batches(rows, reads_thought=False)] == [
        [[1, 2], [5, 6]]
    ]
    (batch,) = prompts_in_batches(rows, reads_thought=True)
    assert [found["input_ids"] for found in batch] == [[1, 2, 3], [1, 2, 9], [5, 6, 7]]


def states_by_hand(rows: list[Row]) -> torch.Tensor:
    """Return the states at the decision positions of the model as it came, one prompt at a time."""
    model = make_model()
    with torch.no_grad():
        return torch.stack(
            [
                model.base_model(torch.tensor([row["input_ids"]])).last_hidden_state[0, row["decision_index"]]
                for row in rows
            ]
        )


def test_statistics_are_those_of_the_model_as_it_came(make_trainer: TrainerFactory, rows: list[Row]) -> None:
    trainer = make_trainer(make_model(), rows, max_steps=2)
    trainer.train()
    states = states_by_hand(rows)
    head = head_of(trainer.model)
    torch.testing.assert_close(head.mean, states.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(head.deviation, states.std(0, correction=0), rtol=1e-5, atol=1e-6)
    # The first loss is that of the drawn head on (h − μ) / σ, divided by the four rows.
    first = make_trainer(make_model(), rows)
    weight = head_of(first.model).weight[0]
    z = ((states - states.mean(0)) / states.std(0, correction=0)) @ weight
    targets = torch.tensor([row["signal"] for row in rows])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(z, targets)
    (entry, _) = [entry for entry in trainer.state.log_history if "align_loss" in entry]
    assert entry["align_loss"] == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("settings", [{"standardize_head": False}, {"lambda_align": 0.0}, {"head": "pooled"}])
def test_a_raw_head_has_no_statistics(
    make_trainer: TrainerFactory, rows: list[Row], settings: dict[str, Any], tmp_path: Path
) -> None:
    pooled = [{**row, "pool_index": row["decision_index"] + 1} for row in rows]
    trainer = make_trainer(make_model(), pooled, **settings)
    trainer.train()
    assert torch.equal(head_of(trainer.model).mean, torch.zeros(32))
    assert torch.equal(head_of(trainer.model).deviation, torch.ones(32))
    assert not (Path(trainer.args.output_dir) / "head_statistics.safetensors").exists()


def settings_of(folder: Path, align: AlignSettings = SETTINGS) -> FitSettings:
    return FitSettings(align=align, lambda_align=1.0, seed=3, folder=folder, label="tiny", base_model="mine/tiny")


def test_lost_statistics_are_one_line(libraries: None, renderer: Renderer, tmp_path: Path) -> None:
    fit(make_model(), renderer, fit_rows(), settings_of(tmp_path))
    (tmp_path / "checkpoints" / "head_statistics.safetensors").unlink()
    with pytest.raises(RunError, match=r"head_statistics\.safetensors, .* cannot be read") as caught:
        fit(make_model(), renderer, fit_rows(), settings_of(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("standardize", [True, False])
def test_head_and_adapter_are_clipped_apart(make_trainer: TrainerFactory, rows: list[Row], standardize: bool) -> None:
    trainer = make_trainer(make_model(), rows, max_grad_norm=0.01, standardize_head=standardize)
    head = list(head_of(trainer.model).parameters())
    others = [p for p in trainer.model.parameters() if p.requires_grad and all(p is not own for own in head)]
    for parameter in (*head, *others):
        parameter.grad = torch.ones_like(parameter)
    trainer._clip_grad_norm(trainer.model)

    def norm(parameters: list[Any]) -> float:
        return math.sqrt(sum(float((p.grad**2).sum()) for p in parameters))

    # apart, each norm is 0.01; jointly, the norm of both together is
    if standardize:
        assert norm(head) == pytest.approx(0.01, rel=1e-3)
        assert norm(others) == pytest.approx(0.01, rel=1e-3)
    else:
        assert norm([*head, *others]) == pytest.approx(0.01, rel=1e-3)


def test_entropy_by_hand() -> None:
    # H(½) = ln 2; H(0) = H(1) = 0; H(¼) = −¼ ln ¼ − ¾ ln ¾ = 0.562335
    assert float(signal_entropy(torch.tensor([0.5, 0.0, 1.0, 0.25]))) == pytest.approx(math.log(2) + 0.562335, rel=1e-5)


def test_fit_of_the_head_by_hand() -> None:
    # Eight steps of one row; the last quarter is steps 7 and 8, with p′ of ¼ and ¾: floor H(¼), constant H(½) = ln 2.
    rows = [
        row._replace(signal=signal) for row, signal in zip(fit_rows(), (1, 1, 1, 1, 1, 1, 0.25, 0.75), strict=False)
    ]
    history = [HistoryPoint(step=i, nll=1.0, bce=float(i), start_bce=None) for i in range(1, 7)]
    history += [HistoryPoint(step=i, nll=1.0, bce=bce, start_bce=None) for i, bce in ((7, 0.58), (8, 0.60))]
    found = head_fit(history, rows, cosine=0.5)
    assert found.loss == pytest.approx(0.59)
    assert (found.floor, found.constant) == (pytest.approx(0.562335), pytest.approx(math.log(2)))
    # (0.693147 − 0.59) / (0.693147 − 0.562335) = 0.7885
    assert found.explained == pytest.approx(0.7885, abs=1e-4)
    assert found.is_fitted is True
    assert found.model_copy(update={"loss": 0.64}).is_fitted is False  # 0.406
    same = HeadFit(loss=0.6, floor=0.5, constant=0.5, cosine=1.0)  # p′ is the same for all: nothing to fit
    assert (same.explained, same.is_fitted) == (None, None)


def test_a_training_says_how_its_head_fitted(
    libraries: None, renderer: Renderer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = SETTINGS.model_copy(update={"max_steps": 2, "head_learning_rate": 1e-5, "learning_rate": 1e-5})
    fit(make_model(), renderer, fit_rows(), settings_of(tmp_path, few))
    found = HeadFit.model_validate(read_json(tmp_path / "head_fit.json"))
    (first, second) = read_jsonl(tmp_path / "history.jsonl", HistoryPoint)
    assert first.floor is not None
    assert found.loss == pytest.approx(second.bce)
    assert found.floor == pytest.approx(second.floor, rel=1e-5)
    assert found.cosine > 0.999  # at a rate of 1e-5 it cannot have turned
    assert found.is_fitted is False
    assert "tiny: the head did not fit" in " ".join(capsys.readouterr().err.split())
