"""A run on tiny models that is killed in every stage, or finds the disk full, loses nothing.

`tests/integration/test_run.py` kills SmolThink's sampling and training; `make faults` kills at random moments.
"""

from __future__ import annotations

import re
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from command_line import finish, start
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from presafe.records import Response
from presafe.stages.evaluate import responses_by_suite
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import evaluated_systems

KILL_AT = (
    r"^  teacher: ",
    r"^  own: ",
    r"^  classifier: [3-9]",
    r"^  sft: 8/",
    r"^  presafe: 15/",
    r"^  vanilla-on: ",
    r"^  presafe-on: ",
    r"^5 report",
)
"""The line on stderr after which the process is killed: each stage once or twice."""


@pytest.fixture(scope="module")
def file(recipe: Path) -> Path:
    """Write the tiny recipe with two systems and with trainings of some length, which write checkpoints."""
    text = recipe.read_text(encoding="utf-8").replace('systems = ["presafe"]', 'systems = ["sft", "presafe"]')
    text = text.replace("max_steps = 6", "max_steps = 24\nsave_steps = 4")
    file = recipe.with_name("killed.toml")
    file.write_text(text.replace("epochs = 2", "epochs = 4\nsave_steps = 2"), encoding="utf-8")
    return file


def kill_at(pattern: str, file: Path, out: Path) -> None:
    """Start or resume the run, and kill it when it prints a line like the pattern."""
    process = start("run", str(file), "--out", str(out))
    lines = []
    for line in process.stderr:
        lines.append(line)
        if re.search(pattern, line):
            process.send_signal(signal.SIGKILL)
            break
    else:
        pytest.fail(f"no line like {pattern}: {''.join(lines)[-2000:]}")
    assert process.wait() == -signal.SIGKILL, pattern


def responses(folder: Path) -> dict[str, dict[str, list[Response]]]:
    run = RunFolder.existing(folder)
    return {f"{s.name} {s.thinking}": responses_by_suite(run, s) for s in evaluated_systems(run.recipe)}


def test_kills_in_every_stage_leave_the_same_results(file: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    for pattern in KILL_AT:
        kill_at(pattern, file, out)
    for folder in (out, whole):
        done = finish("run", str(file), "--out", str(folder))
        assert done.returncode == 0, done.stderr

    assert responses(out) == responses(whole)
    for name in ("signals/signals.jsonl", "evaluation/scores.jsonl"):
        assert (out / name).read_text() == (whole / name).read_text(), name
    for system in ("sft", "presafe"):
        ours, theirs = (folder / "alignment" / system for folder in (out, whole))
        assert (ours / "history.jsonl").read_text() == (theirs / "history.jsonl").read_text()
        left, right = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (ours, theirs))
        assert left.keys() == right.keys()
        assert all(left[name].equal(right[name]) for name in right)


def test_a_full_disk_keeps_finished_work(recipe: Path, tokenizer: Any, tmp_path: Path) -> None:
    # A limit on file size fails writes as a full disk does: the classifier (5 MB) does not fit, the logs do.
    if not hasattr(resource, "prlimit"):
        pytest.skip("this system sets no limits of another process")
    sizes = {"hidden_size": 16, "intermediate_size": 40_000, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=260, max_position_embeddings=256, **sizes)).save_pretrained(tmp_path / "wide")
    tokenizer.save_pretrained(tmp_path / "wide")
    file, out = recipe.with_name("wide.toml"), tmp_path / "run"
    text = recipe.read_text(encoding="utf-8").replace(f"{recipe.parent}/encoder", f"{tmp_path}/wide")
    file.write_text(text, encoding="utf-8")
    words = ("run", str(file), "--out", str(out), "--until", "align")
    process = start(*words)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert errors.count("presafe: ") == 1
    assert "disk is full" in errors
    assert "Traceback" not in errors
    assert (out / "stages" / "respond").exists()
    assert not (out / "stages" / "signal").exists()
    again = finish(*words)  # with room, it resumes
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("done before") == 1
    assert (out / "alignment" / "presafe" / "adapter" / "adapter_model.safetensors").exists()
