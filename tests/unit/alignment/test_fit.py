"""One training from a recipe: killed and resumed, it ends in the same bits as uninterrupted."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import Row, make_model
from tiny_training import SETTINGS, fit_rows
from transformers import TrainerCallback

import presafe.alignment.fit as fit_module
from presafe.alignment.fit import HISTORY, FitSettings, fit
from presafe.alignment.rows import AlignmentRow
from presafe.errors import ModelError, RecipeError, SignalError
from presafe.models.decision_head import DecisionHead
from presafe.models.rendering import Renderer
from presafe.records import HistoryPoint
from presafe.runs.io import read_jsonl
from presafe.runtime.checkpoints import last_checkpoint


class Kill(TrainerCallback):
    """Simulates a kill before a step, and records the steps that were started."""

    def __init__(self, before_step: int | None) -> None:
        self.before_step = before_step
        self.started: list[int] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step + 1 == self.before_step:
            raise KeyboardInterrupt
        self.started.append(state.global_step + 1)


NEVER = 7
"""A step that no training here reaches."""


@pytest.fixture(scope="module")
def align(libraries: None, renderer: Renderer) -> Any:
    """Provide `fit` on the tiny model, with random generators in a new state, as in a new process.

    It returns the steps that this process started, if `kill_before` is given.
    """

    def run(
        folder: Path,
        *,
        kill_before: int | None = None,
        rows: list[AlignmentRow] | None = None,
        seed: int = 7,
        lambda_align: float = 1.0,
        settings: Any = SETTINGS,
        dtype: torch.dtype = torch.float32,
    ) -> Any:
        model = make_model().to(dtype)
        torch.manual_seed(random.SystemRandom().randrange(2**32))
        random.seed()
        kill = Kill(kill_before)
        with pytest.MonkeyPatch.context() as patch:
            if kill_before is not None:
                patch.setattr(fit_module, "bar_callback", lambda bar: kill)
            fit(
                model,
                renderer,
                fit_rows() if rows is None else rows,
                FitSettings(
                    align=settings,
                    lambda_align=lambda_align,
                    seed=seed,
                    folder=folder,
                    label="tiny",
                    base_model="mine/tiny",
                ),
            )
        return kill.started

    return run


@pytest.fixture(scope="module")
def whole(align: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Provide an uninterrupted training."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    align(folder)
    return folder


def assert_same_bits(left: Any, right: Any) -> None:
    """Check that two nested structures of tensors and numbers are identical."""
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same_bits(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for left_item, right_item in zip(left, right, strict=True):
            assert_same_bits(left_item, right_item)
    else:
        assert left == right


def assert_same_training(left: Any, right: Any) -> None:
    """Check that adapter, head, optimizer, schedule and history of two folders are identical, bit for bit."""
    for file in ("adapter/adapter_model.safetensors", "presafe_head.safetensors"):
        assert_same_bits(load_file(str(left / file)), load_file(str(right / file)))
    for file in ("optimizer.pt", "scheduler.pt"):
        states = [torch.load(folder / "checkpoints" / "checkpoint-6" / file) for folder in (left, right)]
        assert_same_bits(*states)
    for file in ("adapter/adapter_config.json", HISTORY):
        assert (left / file).read_text() == (right / file).read_text()


def checkpoints(folder: Path) -> Any:
    return sorted(path.name for path in (folder / "checkpoints").glob("checkpoint-*"))


def test_fit_writes_adapter_head_and_history(whole: Any) -> None:
    assert sorted(path.name for path in whole.iterdir()) == [
        "adapter",
        "checkpoints",
        "head_fit.json",
        HISTORY,
        "presafe_head.safetensors",
    ]
    assert checkpoints(whole) == ["checkpoint-6"]
    history = read_jsonl(whole / HISTORY, HistoryPoint)
    assert [point.step for point in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1].nll < history[0].nll
    # Five steps of four rows are two passes over ten rows of 60 prompt and 40 completion tokens.
    assert sum(point.num_tokens or 0 for point in history[:5]) == 200
    config = json.loads((whole / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (8, 16, ["q_proj", "v_proj"])
    assert DecisionHead(whole).weight.shape == (1, 32)
    # Warm-up: 0/2, 1/2 of 1e-2; then (1 + cos(π·t/4)) / 2 of it for t = 0, 1, 2, 3.
    state = json.loads((whole / "checkpoints" / "checkpoint-6" / "trainer_state.json").read_text())
    rates = [entry["learning_rate"] for entry in state["log_history"] if "learning_rate" in entry]
    assert rates == pytest.approx([0, 0.005, 0.01, 0.00853553, 0.005, 0.00146447], abs=1e-7)


def test_resumed_equals_uninterrupted(align: Any, whole: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        align(tmp_path / "killed", kill_before=4)
    assert checkpoints(tmp_path / "killed") == ["checkpoint-3"]
    assert not (tmp_path / "killed" / HISTORY).exists()
    assert align(tmp_path / "killed", kill_before=NEVER) == [4, 5, 6]
    assert_same_training(whole, tmp_path / "killed")


def test_steps_after_the_last_checkpoint_are_repeated(align: Any, tmp_path: Path) -> None:
    # and the head's own learning rate, hence its group in the optimizer, survives
    settings = SETTINGS.model_copy(update={"save_steps": 3, "head_learning_rate": 0.1})
    align(tmp_path / "whole", settings=settings)
    with pytest.raises(KeyboardInterrupt):
        align(tmp_path / "killed", settings=settings, kill_before=6)  # steps 4 and 5 are lost
    assert checkpoints(tmp_path / "killed") == ["checkpoint-3"]
    assert align(tmp_path / "killed", settings=settings, kill_before=NEVER) == [4, 5, 6]
    assert_same_training(tmp_path / "whole", tmp_path / "killed")
    groups = torch.load(tmp_path / "killed" / "checkpoints" / "checkpoint-6" / "optimizer.pt")["param_groups"]
    assert [(len(group["params"]), group["initial_lr"]) for group in groups] == [(8, 0.01), (0, 0.01), (2, 0.1)]


def test_incomplete_checkpoint_is_skipped(align: Any, whole: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        align(tmp_path / "killed", kill_before=4)
    # The kill came while step 4's checkpoint was written: weights half there, trainer_state.json not yet.
    folder = tmp_path / "killed" / "checkpoints"
    shutil.copytree(folder / "checkpoint-3", folder / "checkpoint-4")
    (folder / "checkpoint-4" / "trainer_state.json").unlink()
    (folder / "checkpoint-4" / "adapter_model.safetensors").write_bytes(b"half")
    assert align(tmp_path / "killed", kill_before=NEVER) == [4, 5, 6]
    assert checkpoints(tmp_path / "killed") == ["checkpoint-6"]
    assert_same_training(whole, tmp_path / "killed")


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("adapter_model.safetensors", lambda state: dict(list(state.items())[1:]), "1 of the .* weights are missing"),
        ("adapter_model.safetensors", lambda state: state | {"more": torch.ones(1)}, "have no place, first: more"),
        ("adapter_model.safetensors", lambda state: {k: v[:1].clone() for k, v in state.items()}, "has the shape"),
        ("adapter_model.safetensors", lambda state: {k: v * torch.nan for k, v in state.items()}, "NaN or infinite"),
        ("adapter_model.safetensors", None, "cannot be read"),
        (
            "optimizer.pt",
            lambda state: state | {"state": {0: {"exp_avg": torch.tensor([torch.inf])}}},
            "NaN or infinite",
        ),
        ("optimizer.pt", lambda state: state | {"state": {0: {"exp_avg": torch.ones(3)}}}, "other parameters"),
        ("optimizer.pt", lambda state: [state], "no optimizer state"),
        ("optimizer.pt", None, "cannot be read"),
        ("trainer_state.json", lambda state: {}, "is of step None"),
    ],
)
def test_foreign_checkpoint_is_one_line(
    align: Any, whole: Any, tmp_path: Path, file: str, change: Any, words: str
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "checkpoint-6" / file
    if change is None:
        path.write_bytes(path.read_bytes()[:100])
    elif file.endswith(".json"):
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    elif file.endswith(".pt"):
        torch.save(change(torch.load(path, weights_only=True)), path)
    else:
        save_file(change(load_file(path)), path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=words) as caught:
        align(tmp_path / "run")
    assert "checkpoint-6" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_kill_before_export_adds_no_training_step(align: Any, whole: Any, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "adapter")
    (tmp_path / "killed" / HISTORY).unlink()
    (tmp_path / "killed" / "presafe_head.safetensors").unlink()
    assert align(tmp_path / "killed", kill_before=NEVER) == []
    assert_same_training(whole, tmp_path / "killed")


def test_training_depends_on_seed_and_lambda(align: Any, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"max_steps": 2, "warmup_steps": 0})
    for name, other in (("first", {}), ("again", {}), ("seed", {"seed": 8}), ("lambda", {"lambda_align": 0.0})):
        align(tmp_path / name, settings=settings, **other)
    first, again, seed, without = (
        load_file(str(tmp_path / name / "adapter" / "adapter_model.safetensors"))
        for name in ("first", "again", "seed", "lambda")
    )
    assert_same_bits(first, again)
    assert all(not torch.equal(weight, seed[name]) for name, weight in first.items())
    assert all(not torch.equal(weight, without[name]) for name, weight in first.items())
    # λ = 0: the head is trained on nothing, so it is neither written nor drawn
    assert not (tmp_path / "lambda" / "presafe_head.safetensors").exists()
    assert DecisionHead(tmp_path / "first").bias.item() != 0.0
    # the first step reads the same rows with the same weights, whatever λ is
    histories = [read_jsonl(tmp_path / name / HISTORY, HistoryPoint) for name in ("first", "lambda")]
    assert histories[0][0].nll == histories[1][0].nll
    assert histories[0][1].nll != histories[1][1].nll
    assert [point.bce for point in histories[1]] == [None, None]


def test_unknown_lora_targets_fail_before_training(align: Any, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"lora_targets": ("q_proj", "c_attn")})
    with pytest.raises(RecipeError, match="no layer named c_attn"):
        align(tmp_path / "run", settings=settings)


def test_adapter_config_names_its_base(whole: Any) -> None:
    config = json.loads((whole / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "mine/tiny"


def test_long_rows_are_truncated_and_full_prompts_dropped(align: Any, tmp_path: Path) -> None:
    rows = fit_rows()
    longest = 9  # prompts have 4 to 8 tokens
    assert any(len(row.input_ids) > longest for row in rows)
    assert any(len(row.input_ids) <= longest for row in rows)
    crowded = rows[0]._replace(
        input_ids=[7] * 12, labels=[-100] * 9 + [7] * 3, decision_index=longest - 1, start_index=longest - 1
    )
    by_hand = [row._replace(input_ids=row.input_ids[:longest], labels=row.labels[:longest]) for row in rows]
    settings = SETTINGS.model_copy(update={"max_steps": 2})
    align(tmp_path / "cut", rows=[*rows, crowded], settings=settings.model_copy(update={"max_length": longest}))
    align(tmp_path / "hand", rows=by_hand, settings=settings)
    assert (tmp_path / "cut" / HISTORY).read_text() == (tmp_path / "hand" / HISTORY).read_text()


@pytest.mark.parametrize("rows", [None, []])
def test_fit_without_trainable_rows_fails(align: Any, tmp_path: Path, rows: list[Row]) -> None:
    with pytest.raises(SignalError, match="2 tokens"):
        align(tmp_path / "run", rows=rows, settings=SETTINGS.model_copy(update={"max_length": 2}))
    assert not (tmp_path / "run").exists()


def test_last_checkpoint_is_the_newest_complete_one(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "missing") is None
    for step in (9, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (9, 10):  # 10 is newer than 9, though "10" sorts before "9"
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]
    for path in tmp_path.iterdir():
        (path / "trainer_state.json").unlink()
    assert last_checkpoint(tmp_path) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there bfloat16 is what fit always trains in")
def test_bfloat16_model_trains_a_float32_adapter(align: Any, whole: Any, tmp_path: Path) -> None:
    align(tmp_path / "run", dtype=torch.bfloat16)
    weights = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    # Steps of AdamW are far smaller than a bfloat16's last bit at these weights: they are not rounded to it.
    assert any(not torch.equal(weight, weight.bfloat16().float()) for weight in weights.values())
    ours, theirs = (read_jsonl(folder / HISTORY, HistoryPoint) for folder in (tmp_path / "run", whole))
    assert [point.nll for point in ours] != [point.nll for point in theirs]
    for point, reference in zip(ours, theirs, strict=True):
        assert point.nll == pytest.approx(reference.nll, rel=0.02)
        assert point.bce == pytest.approx(reference.bce, rel=0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="these are shortcuts of CPUs")
def test_skipping_casts_is_bit_identical(align: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = []

    @contextmanager
    def recording(model: Any, active: bool) -> Iterator[Any]:
        recorded.append(active)
        yield

    align(tmp_path / "run", dtype=torch.bfloat16)
    monkeypatch.setattr("peft.helpers.disable_input_dtype_casting", recording)
    align(tmp_path / "cast", dtype=torch.bfloat16)
    assert recorded == [True]
    assert (tmp_path / "cast" / HISTORY).read_text() == (tmp_path / "run" / HISTORY).read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this is a shortcut of CPUs")
def test_fused_attention_learns_as_much_as_plain(align: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    align(tmp_path / "short", dtype=torch.bfloat16)
    monkeypatch.setattr(fit_module, "_SHORT", 0)
    align(tmp_path / "long", dtype=torch.bfloat16)
    short, long = (read_jsonl(tmp_path / name / HISTORY, HistoryPoint) for name in ("short", "long"))
    # torch may round elsewhere, and no more
    assert [point.nll for point in long] == pytest.approx([point.nll for point in short], rel=0.01)


def test_no_tracker_is_written_into_settings() -> None:
    # so that folders from before the setting resume
    assert "report_to" not in SETTINGS.model_dump(mode="json")
    asked = type(SETTINGS).model_validate({"report_to": ["wandb"]})
    assert asked.model_dump(mode="json")["report_to"] == ["wandb"]
    with pytest.raises(ValueError, match="no value may stand twice"):
        type(SETTINGS).model_validate({"report_to": ["wandb", "wandb"]})
