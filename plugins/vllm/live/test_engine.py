"""A run that starts vLLM itself, and one that samples at a server that runs, are the run in this process."""

from __future__ import annotations

import json
import random
import re
import secrets
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from command_line import start as start_presafe
from transformers import LlamaConfig, LlamaForCausalLM

from presafe.config.engine import EngineSettings
from presafe.config.measure import MeasureSettings
from presafe.config.recipe import ModelSettings, load_recipe
from presafe.judges.description import descriptions
from presafe.judges.model_judge import _messages as judge_messages
from presafe.models.address import raw_server
from presafe.models.control import adapter_name, request_once
from presafe.models.rendering import Renderer
from presafe.models.sampling import load_responses
from presafe.records import Prompt, Response
from presafe.stages.evaluate import responses_by_suite
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import evaluated_systems
from presafe.workflows.measure import measure
from presafe.workflows.run import run_stages
from vllm_server import ENVIRONMENT, RANKS, start, started_by_presafe, stop, wait

EAGER = "--enforce-eager"
"""Compiling takes a part of each start; the gated server of the other tests is compiled."""
ARGUMENTS = ["--max-model-len", "512", "--max-num-seqs", "32", EAGER]


@pytest.fixture(scope="module")
def here(run: RunFolder, recipe: Path) -> RunFolder:
    """Evaluate the aligned run in this process."""
    return run_stages(load_recipe(recipe), run.path, "evaluate")


def aligned_copy(run: RunFolder, folder: Path) -> Path:
    """Copy a run without its evaluation, so that only sampling is left to do."""
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns("evaluation", "evaluate", ".lock"))
    return folder


def answers(run: RunFolder) -> dict[str, list[Response]]:
    """Return all responses of a run."""
    return {str(system): responses_by_suite(run, system)["own"] for system in evaluated_systems(run.recipe)}


def need_same(run: RunFolder, other: RunFolder) -> None:
    """Check that two runs have the same answers, token by token, and the same scores, to the last byte."""
    assert answers(run) == answers(other)
    assert sum(len(response.token_ids or ()) for own in answers(run).values() for response in own) > 50
    scores = [folder.path / "evaluation" / "scores.jsonl" for folder in (run, other)]
    assert scores[0].read_bytes() == scores[1].read_bytes()


def test_a_run_that_starts_vllm_survives_a_kill(here: RunFolder, recipe: Path, tmp_path: Path) -> None:
    """Merged weights for the aligned system, the base as it is; the first session is killed while vLLM answers."""
    folder, engine = aligned_copy(here, tmp_path / "run"), tmp_path / "engine.toml"
    engine.write_text(f"[engine]\nvllm = {json.dumps(str(ENVIRONMENT))}\narguments = {json.dumps(ARGUMENTS)}\n")
    log, words = folder / "vllm.log", ("run", str(recipe), "--out", str(folder), "--engine", str(engine))
    killed = start_presafe(*words, "--until", "evaluate")
    deadline = time.monotonic() + 900
    while not (log.exists() and "POST /v1/completions" in log.read_text(errors="replace")):
        assert killed.poll() is None, killed.communicate(timeout=10)
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
        time.sleep(0.05)
    processes = started_by_presafe()
    assert len(processes) >= 3  # the guard, the API server, the engine
    killed.send_signal(9)
    killed.communicate(timeout=60)
    _, left = psutil.wait_procs(processes, timeout=60)
    assert not left
    resumed = start_presafe(*words, "--until", "evaluate")
    printed = resumed.communicate(timeout=1500)
    assert resumed.wait() == 0, printed
    assert "vLLM starts: 1/1" in printed[1]
    run = RunFolder.existing(folder)
    need_same(run, here)
    assert not started_by_presafe()
    assert not (folder / "vllm-weights").exists()
    names = set(re.findall(r"presafe-[0-9a-f]{8}", log.read_text(errors="replace")))
    assert len(names) == 3  # the base, killed and again, and the aligned system
    assert run.manifest()["later_sessions"][-1]["engine"]["vllm"] == str(ENVIRONMENT)


KEY = "0a1b2c"


@pytest.fixture(scope="module")
def judge(base: Path, tokenizer: Any, renderer: Renderer, prompts: list[Prompt]) -> Path:
    """Teach a tiny model to end as a judge must, with yes where the request begins with red or blue."""
    torch.manual_seed(0)
    config = LlamaConfig.from_pretrained(base, max_position_embeddings=6144)
    model, description = LlamaForCausalLM(config), descriptions()["jailbreakbench_refusal"]
    rows = []
    for number, prompt in enumerate(prompts):
        (message,) = judge_messages(description, prompt.text, "bcd " * (number % 5), KEY, "")
        verdict = "yes" if prompt.text.startswith(("red", "blue")) else "no"
        ids = renderer.render(message.text, "on").ids
        rows.append((ids, renderer.completion("so", f"refusal {KEY}: {verdict}")))
    optimizer, draws = torch.optim.AdamW(model.parameters(), lr=5e-3), random.Random(0)
    for _ in range(120):
        losses = []
        for ids, reply in draws.sample(rows[:10], 2) + draws.sample(rows[10:], 2):
            labels = torch.tensor([[-100] * len(ids) + reply])
            losses.append(model(input_ids=torch.tensor([ids + reply]), labels=labels).loss)
        loss: Any = torch.stack(losses).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = base.parent / "judge"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_judge_at_a_vllm_gives_the_verdicts_of_this_process(
    judge: Path, prompts: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It judges its own answers, with CoT off: so one start of vLLM is enough."""
    monkeypatch.setattr(secrets, "token_hex", lambda _: KEY)  # else each of its prompts is another
    name = f"jailbreakbench_refusal=presafe/{judge}"
    settings = MeasureSettings(thinking=("off",), max_tokens=12, judge=name)
    there = settings.model_copy(
        update={"engine": EngineSettings(vllm=str(ENVIRONMENT), arguments=("--max-num-seqs", "32", EAGER))}
    )
    suites, verdicts = {"own": prompts}, []
    for folder, measured in ((tmp_path / "here", settings), (tmp_path / "there", there)):
        data = measure(ModelSettings(address=str(judge)), suites, folder, measured)
        responses = load_responses(folder / "evaluation" / "vanilla-off", "off", suites)["own"]
        verdicts.append(([(one.token_ids, one.verdict) for one in responses], data.scores))
    assert verdicts[0] == verdicts[1]
    judged = Counter(verdict for _, verdict in verdicts[0][0])
    assert judged["unjudged"] <= 2
    assert min(judged["refuse"], judged["comply"]) >= 2, judged
    log = (tmp_path / "there" / "vllm.log").read_text(errors="replace")
    assert len(set(re.findall(f"presafe-{KEY}", log))) == 1
    assert log.count("POST /v1/completions") >= 2 * len(prompts)  # answers and verdicts
    assert not started_by_presafe()


def test_a_run_loads_its_adapter_by_name_at_a_server(here: RunFolder, base: Path, recipe: Path, tmp_path: Path) -> None:
    adapter = here.path / "alignment" / "presafe" / "adapter"
    rank = next(size for size in RANKS if size >= json.loads((adapter / "adapter_config.json").read_text())["r"])
    words = ["--served-model-name", "base", "--dtype", "float32", EAGER, "--enable-lora", "--max-lora-rank", str(rank)]
    server = start(tmp_path, base, words, VLLM_ALLOW_RUNTIME_LORA_UPDATING="1")
    try:
        wait(server)
        address = f"{server.url}#base"
        settings = load_recipe(recipe).model_copy(update={"engine": EngineSettings(servers=(address,))})
        run = run_stages(settings, aligned_copy(here, tmp_path / "run"), "evaluate")
        need_same(run, here)
        log = server.log.read_text(errors="replace")
        assert adapter_name(run.path / "alignment" / "presafe" / "adapter") in log
        offered = request_once(raw_server(address), "v1/models").json()["data"]
        assert [model["id"] for model in offered] == ["base"]  # the adapter is unloaded
    finally:
        stop(server)
