"""A run is killed five times: while a vLLM of its own starts, while it answers, and while the run trains."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from command_line import start
from inspect_ai.log import read_eval_log
from tiny_run import answers, teach, write_recipe
from transformers import LlamaConfig, LlamaForCausalLM

from presafe.config.recipe import load_recipe
from presafe.models.rendering import Renderer
from presafe.stages.run_folder import RunFolder
from presafe.workflows.run import run_stages
from vllm_server import ENVIRONMENT, started_by_presafe

ARGUMENTS = ["--max-model-len", "512", "--max-num-seqs", "8", "--enforce-eager"]
KILL_AT = (r"vLLM starts", r"^  teacher: [1-9]", r"^  own: [1-9]", r"^  presafe: [2-9]", r"^  presafe-on: [1-9]")
"""The line on stderr at which the process is killed."""


@pytest.fixture(scope="module")
def file(base: Path, tokenizer: Any, renderer: Renderer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the tiny recipe with models whose heads have the 32 numbers that vLLM needs on CPUs."""
    folder = tmp_path_factory.mktemp("killed")
    recipe = write_recipe(folder, tokenizer, renderer)
    torch.manual_seed(1)
    config = LlamaConfig.from_pretrained(base)
    teacher = LlamaForCausalLM(config)
    teach(teacher, renderer)
    for name, model in (("student", LlamaForCausalLM.from_pretrained(base)), ("teacher", teacher)):
        model.save_pretrained(folder / name)
    return recipe


def is_finished(log: Path) -> bool:
    """Return whether all of a log's answers are there."""
    try:
        return read_eval_log(str(log), header_only=True).status == "success"
    except Exception:  # a kill cut it
        return False


def test_five_kills_lose_nothing(file: Path, tmp_path: Path) -> None:
    here = run_stages(load_recipe(file), tmp_path / "here", "evaluate")
    out, engine = tmp_path / "there", tmp_path / "engine.toml"
    engine.write_text(f"[engine]\nvllm = {json.dumps(str(ENVIRONMENT))}\narguments = {json.dumps(ARGUMENTS)}\n")
    words = ("run", str(file), "--out", str(out), "--until", "evaluate", "--engine", str(engine))
    finished: dict[Path, int] = {}
    for pattern in KILL_AT:
        process = start(*words)
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if re.search(pattern, line):
                break
        else:
            pytest.fail(f"no line like {pattern}: {''.join(lines)[-3000:]}")
        left = started_by_presafe()
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        _, alive = psutil.wait_procs(left, timeout=60)
        assert not alive, pattern
        finished |= {path: path.stat().st_mtime_ns for path in out.rglob("*.eval") if is_finished(path)}
    process = start(*words)
    printed = process.communicate(timeout=1500)
    assert process.wait() == 0, printed
    assert len(finished) >= 4  # the teacher's, the traces', the model's own, and the model as it came
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # none was sampled again
    run = RunFolder.existing(out)
    assert answers(run) == answers(here)
    assert sum(len(response.token_ids or ()) for own in answers(run).values() for response in own) > 100
    scores = [folder.path / "evaluation" / "scores.jsonl" for folder in (run, here)]
    assert scores[0].read_bytes() == scores[1].read_bytes()
    assert not started_by_presafe()
