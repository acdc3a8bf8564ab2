"""`tools/smolthink/build.py`: two steps of the training that makes the shipped adapter, on the real base model."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from safetensors.torch import load_file

from presafe.models.loading import smolthink_adapter
from presafe.prompts.sets import built_in

SCRIPT = Path(__file__).parents[2] / "tools" / "smolthink" / "build.py"


def test_build_runs_two_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, out = tmp_path / "work", tmp_path / "adapter"
    # Sampling the base model's own answers takes ten minutes: these replace them, as if a kill had come after it.
    work.mkdir()
    ids = [prompt.id for name in ("benign", "borderline") for prompt in built_in(name, "build")]
    answer = "The first thing that you need is a little time, and the second is somebody who likes to help."
    for file in ("answers-off.json", "answers-on.json"):
        (work / file).write_text(json.dumps(dict.fromkeys(ids, answer)), encoding="utf-8")
    words = ["--work", str(work), "--out", str(out), "--max-steps", "2"]
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    built, shipped = (load_file(folder / "adapter_model.safetensors") for folder in (out, smolthink_adapter()))
    assert {name: (value.shape, value.dtype) for name, value in built.items()} == {
        name: (value.shape, value.dtype) for name, value in shipped.items()
    }
    assert any(value.abs().max() > 0 for name, value in built.items() if "lora_B" in name)
    configs = [
        json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        for folder in (out, smolthink_adapter())
    ]
    assert configs[0] == configs[1]

    # other settings are refused in one line; in this process, because a second Python would import torch again
    with pytest.raises(typer.Exit) as stop:
        runpy.run_path(str(SCRIPT))["command"](work, out, seed=0, max_steps=3)
    assert stop.value.exit_code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("build.py: ")
    assert "max_steps" in printed
    assert printed.count("\n") == 1
