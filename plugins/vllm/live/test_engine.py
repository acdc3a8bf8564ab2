"""A run that starts vLLM itself, and one that samples at a server that runs, are the run in this process."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import psutil
import pytest
from command_line import start as start_presafe

from presafe.config.engine import EngineSettings
from presafe.config.recipe import load_recipe
from presafe.models.address import raw_server
from presafe.models.control import adapter_name, request_once
from presafe.records import Response
from presafe.stages.evaluate import responses_by_suite
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import evaluated_systems
from presafe.workflows.run import run_stages
from vllm_server import ENVIRONMENT, RANKS, start, stop, wait

ARGUMENTS = ["--max-model-len", "512", "--max-num-seqs", "32"]


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


def started_by_presafe() -> list[psutil.Process]:
    """Return the running processes of a vLLM that a run has started: those of its guard's children's group."""
    groups = set()
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "--served-model-name" in words and words[words.index("--served-model-name") + 1].startswith("presafe-"):
            groups |= {process, *process.children(recursive=True)}
    return [process for process in groups if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


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


def test_a_run_loads_its_adapter_by_name_at_a_server(here: RunFolder, base: Path, recipe: Path, tmp_path: Path) -> None:
    adapter = here.path / "alignment" / "presafe" / "adapter"
    rank = next(size for size in RANKS if size >= json.loads((adapter / "adapter_config.json").read_text())["r"])
    words = ["--served-model-name", "base", "--dtype", "float32", "--enable-lora", "--max-lora-rank", str(rank)]
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
