"""`presafe smolthink`: two steps of the training that makes the shipped adapter, on the real base model."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import finish
from safetensors.torch import load_file

from presafe.models.loading import smolthink_adapter
from presafe.prompts.sets import built_in


def test_two_steps_of_the_training(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "adapter"
    # The base model's own answers take ten minutes to sample: these stand as if they had been, before a kill.
    work.mkdir()
    ids = [prompt.id for name in ("benign", "borderline") for prompt in built_in(name, "build")]
    answer = "The first thing that you need is a little time, and the second is somebody who likes to help."
    for file in ("answers-off.json", "answers-on.json"):
        (work / file).write_text(json.dumps(dict.fromkeys(ids, answer)), encoding="utf-8")
    words = ("smolthink", "--work", str(work), "--out", str(out), "--max-steps", "2")
    done = finish(*words)
    assert done.returncode == 0, done.stderr

    made, shipped = (load_file(folder / "adapter_model.safetensors") for folder in (out, smolthink_adapter()))
    assert {name: (value.shape, value.dtype) for name, value in made.items()} == {
        name: (value.shape, value.dtype) for name, value in shipped.items()
    }
    assert any(value.abs().max() > 0 for name, value in made.items() if "lora_B" in name)
    configs = [
        json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        for folder in (out, smolthink_adapter())
    ]
    assert configs[0] == configs[1]

    other = finish(*words[:-1], "3")
    assert other.returncode == 2
    assert "max_steps" in other.stderr
