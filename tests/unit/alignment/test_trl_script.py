"""TRL's conventions: its card names PreSafe, and a script in its manner trains from a YAML file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tiny_models import make_model

from presafe.errors import SignalError
from presafe.models.decision_head import DecisionHead
from presafe.trl_script import training_row

ROW = {"prompt": "ab", "completion": "c<|im_end|>", "signal": 0.9, "decision_index": 1}


def test_a_row_learns_its_completion_only(tokenizer: Any) -> None:
    row = training_row(ROW, tokenizer)
    prompt, completion = tokenizer("ab").input_ids, tokenizer("c<|im_end|>").input_ids
    assert row["input_ids"] == prompt + completion
    assert row["labels"] == [-100, -100, *completion]
    assert (row["decision_index"], row["start_index"], row["signal"]) == (1, 1, 0.9)
    # a row without a decision (CoT off) has no position either
    assert training_row(ROW | {"signal": None, "decision_index": None}, tokenizer)["decision_index"] == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"decision_index": 2}, "decision_index 2, and its prompt 2 tokens"),
        ({"decision_index": None}, "decision_index None"),
        ({"signal": 1.5}, "signal 1.5"),
        ({"signal": float("nan")}, "signal nan"),
    ],
)
def test_a_row_of_another_tokenizer_is_refused(tokenizer: Any, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(SignalError, match=problem):
        training_row(ROW | changes, tokenizer)


def test_the_script_trains_from_a_yaml_file(tokenizer: Any, tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "refuse.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "data" / "comply.jsonl").write_text(json.dumps(ROW | {"prompt": "abc", "signal": 0.1}) + "\n")
    config = tmp_path / "x.yaml"
    config.write_text(
        f"model_name_or_path: {tmp_path}/model\ndataset_name: {tmp_path}/data\noutput_dir: {tmp_path}/out\n"
        "use_peft: true\nlora_target_modules: [q_proj, v_proj]\nmax_steps: 2\nlambda_align: 0.5\nlearning_rate: 0.01\n"
        "use_cpu: true\nbf16: false\nreport_to: none\nsave_strategy: 'no'\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "presafe.trl_script", "--config", str(config)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert any(weight.abs().max() > 0 for name, weight in weights.items() if "lora_B" in name)
    assert not any("presafe_head" in name for name in weights)
    assert DecisionHead(tmp_path / "out").position == "prompt_end"
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert {"trl", "presafe"} <= set(card.data.tags or [])
    assert "This model was trained with PreSafe, a method introduced in" in card.text
    assert "papers/2603.17368" in card.text
