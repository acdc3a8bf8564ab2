"""A run that samples at servers of real weights is the run that samples in this process, and leaves nothing there."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from model_server import ModelServer, serving_model
from stand_in_vllm import make_environment
from tenacity import wait_none
from tiny_run import answers
from typer.testing import CliRunner

from presafe.cli.main import app
from presafe.config.engine import EngineSettings
from presafe.config.recipe import load_recipe, parse_recipe
from presafe.errors import ModelError, PreSafeError
from presafe.models.sampling import logged_suites
from presafe.stages.evaluate import _read_positions as read_positions
from presafe.stages.evaluate import positions_of
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import System
from presafe.workflows.run import run_stages


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presafe.models.served._BACKOFF", wait_none())
    monkeypatch.setenv("PRESAFE_RETRY_S", "0.2")


@pytest.fixture(scope="module")
def here(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Run the recipe in this process."""
    return run_stages(load_recipe(recipe), tmp_path_factory.mktemp("here") / "run", "evaluate")


@pytest.fixture
def servers(recipe: Path) -> Iterator[list[ModelServer]]:
    """Serve the student twice."""
    base = recipe.parent / "student"
    with serving_model(base) as first, serving_model(base) as second:
        yield [first, second]


def run_at(servers: list[ModelServer], recipe: Path, out: Path) -> RunFolder:
    engine = EngineSettings(servers=tuple(server.address for server in servers))
    return run_stages(load_recipe(recipe).model_copy(update={"engine": engine}), out, "evaluate")


def measuring(recipe: Path) -> list[str]:
    """Return the words that measure the student on four prompts, CoT on and off."""
    prompts = recipe.parent / "blue2.jsonl"
    return ["evaluate", str(recipe.parent / "student"), "--prompts", str(prompts), "--max-tokens", "6"]


def test_a_run_at_two_servers_is_the_run_in_this_process(
    here: RunFolder, servers: list[ModelServer], recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    servers[1].dies_after = 5  # in the middle of the first set that they answer, or of the checks before it
    run = run_at(servers, recipe, tmp_path / "run")
    assert answers(run) == answers(here)  # token ids, too
    assert (run.path / "evaluation" / "scores.jsonl").read_bytes() == (
        here.path / "evaluation" / "scores.jsonl"
    ).read_bytes()
    assert (run.path / "recipe.json").read_bytes() == (here.path / "recipe.json").read_bytes()
    # The base was asked at both, the aligned system at the one that is left, under a name that is gone now.
    names = servers[0].asked.keys() - {"base"}
    assert len(names) == 1
    assert servers[1].asked == {"base": 5}
    assert servers[0].unloaded == [*names]
    assert servers[0].models.keys() == {"base"}
    assert capsys.readouterr().err.count("It is left out, and its prompts are asked elsewhere.") >= 1
    # The manifest says where it sampled; the next session, in this process, is noted beside it.
    addresses = [server.address for server in servers]
    assert run.manifest()["engine"] == {"servers": addresses}
    resumed = run_stages(load_recipe(recipe), run.path, "evaluate")
    assert [session.get("engine") for session in resumed.manifest()["later_sessions"]] == [None]
    assert "engine" not in here.manifest()


def test_a_server_of_another_model_ends_the_run_at_once(recipe: Path, tmp_path: Path) -> None:
    with (
        serving_model(recipe.parent / "teacher") as other,
        pytest.raises(ModelError, match=r"holds another model than the model in this process \(ln P of its next token"),
    ):
        run_at([other], recipe, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("traces/*.eval"))


def test_an_adapter_that_is_refused_says_what_to_do(here: RunFolder, recipe: Path, tmp_path: Path) -> None:
    base = recipe.parent / "student"
    adapter = here.path / "alignment" / "presafe" / "adapter"
    with serving_model(base, lora=False) as server:
        done = CliRunner().invoke(
            app,
            [*measuring(recipe), "--adapter", str(adapter), "--engine", server.address, "--out", str(tmp_path / "out")],
        )
    assert isinstance(done.exception, ModelError)
    problem, hint = done.exception.problem, done.exception.hint
    assert f"does not load the adapter in {adapter}: it answered 404 (Not Found)." in problem
    assert "--enable-lora" in hint
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1" in hint


def test_measuring_at_servers_gives_the_rows_of_this_process(
    servers: list[ModelServer], recipe: Path, tmp_path: Path
) -> None:
    engine = tmp_path / "engine.toml"
    engine.write_text(f"[engine]\nservers = {json.dumps([server.address for server in servers])}\n")
    rows: dict[str, Any] = {}
    for name, words in (("here", []), ("there", ["--engine", str(engine)])):
        out = tmp_path / name
        command = [*measuring(recipe), "--out", str(out), *words]
        assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
        rows[name] = json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"]
    assert rows["here"] == rows["there"]
    # 4 prompts in 2 modes; each server also answers one for the greeting and two for the check, in each mode.
    assert sum(server.asked["base"] for server in servers) == 2 * (4 + 2 * 3)
    assert min(server.asked["base"] for server in servers) >= 2 * (1 + 3)


def test_a_study_at_a_server_has_the_numbers_of_this_process(recipe: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(
        f'name = "Tiny"\nrecipe = {json.dumps(str(recipe))}\nbaseline = "presafe"\n[[condition]]\nname = "presafe"\n'
    )
    results: dict[str, dict[str, Any]] = {}
    with serving_model(recipe.parent / "student") as server:
        for name, words in (("here", []), ("there", ["--engine", server.address])):
            out = tmp_path / name / "study"  # in folders of their own, for no run is copied from a neighbor
            done = CliRunner().invoke(app, ["study", str(study), "--out", str(out), *words], catch_exceptions=False)
            assert done.exit_code == 0
            results[name] = json.loads((out / "runs" / "presafe-seed0.json").read_text(encoding="utf-8"))
        assert len(server.unloaded) == 1  # the aligned system
    for key in ("recipe", "scores", "positions", "answered"):
        assert results["here"][key] == results["there"][key], key
    manifest = json.loads((out / "work" / "presafe-seed0" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["engine"] == {"servers": [server.address]}


def test_servers_of_two_models_are_not_asked_together(recipe: Path, tmp_path: Path) -> None:
    base = recipe.parent / "student"
    with serving_model(base) as first, serving_model(recipe.parent / "teacher") as second:
        words = [word for server in (first, second) for word in ("--engine", server.address)]
        done = CliRunner().invoke(
            app,
            [*measuring(recipe), *words, "--out", str(tmp_path / "out")],
        )
    assert isinstance(done.exception, ModelError)
    assert f"holds another model than {first.address.removesuffix('#base')}/v1" in done.exception.problem


def test_a_vllm_that_dies_loses_nothing(
    here: RunFolder, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESAFE_RETRY_S", "60")
    engine, out = tmp_path / "engine.toml", tmp_path / "out"
    engine.write_text(f"[engine]\nvllm = {json.dumps(str(make_environment(tmp_path / 'env')))}\n")
    adapter = here.path / "alignment" / "presafe" / "adapter"
    words = [*measuring(recipe), "--thinking", "on", "--expect", "comply", "--out", str(out), "--engine", str(engine)]
    words += ["--adapter", str(adapter)]
    monkeypatch.setenv("STAND_IN_FAULT", "dies")
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ModelError)
    assert done.exception.problem == "vLLM ended with code 3: torch.OutOfMemoryError: tried to allocate 2.00 GiB."
    assert done.exception.hint == f"Its log is {out / 'vllm.log'}. Finished work is kept: run it again."
    monkeypatch.delenv("STAND_IN_FAULT")
    again = CliRunner().invoke(app, words, catch_exceptions=False)
    assert again.exit_code == 0
    assert [one.stderr.count("vLLM starts: 1/1") for one in (done, again)] == [1, 1]
    rows = json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"]
    assert {row["metric"]: row["value"] for row in rows}["over_refusal_rate"] == 1  # the stand-in's one answer
    log = (out / "vllm.log").read_text()
    assert log.count(f"--model {out / 'vllm-weights'} --served-model-name presafe-") == 2
    assert not (out / "vllm-weights").exists()


def test_a_judge_has_a_vllm_of_its_own_after_all_answers(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESAFE_RETRY_S", "60")
    base, judge, out = recipe.parent / "student", recipe.parent / "teacher", tmp_path / "out"
    engine = tmp_path / "engine.toml"
    engine.write_text(f"[engine]\nvllm = {json.dumps(str(make_environment(tmp_path / 'env')))}\n")
    words = [*measuring(recipe), "--judge", f"jailbreakbench_refusal=presafe/{judge}"]
    words += ["--out", str(out), "--engine", str(engine)]
    monkeypatch.setenv("STAND_IN_FAULT", "dies")
    monkeypatch.setenv("STAND_IN_FAULTY", "teacher")
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, PreSafeError)
    assert "vLLM ended with code 3: torch.OutOfMemoryError: tried to allocate 2.00 GiB." in done.exception.problem
    kept = sorted(out.rglob("answers.jsonl"))
    assert [(file.parent.name, len(file.read_text().splitlines())) for file in kept] == [
        ("vanilla-off", 4),
        ("vanilla-on", 4),
    ]
    monkeypatch.delenv("STAND_IN_FAULT")
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    # One start of the model for both modes. Its answers are kept, so the second session starts the judge alone.
    started = re.findall(r"--model (\S+) --served-model-name presafe-", (out / "vllm.log").read_text())
    assert started == [str(base), str(judge), str(judge)]
    assert not list(out.rglob("answers*.jsonl"))
    logs = logged_suites(out / "evaluation" / "vanilla-on", "on")
    assert {suite.judge for suite in logs.values()} == {f"jailbreakbench_refusal=presafe/{judge}"}
    (suite,) = logs.values()
    answers = [answer for answers in suite.responses.values() for answer in answers]
    # The stand-in's one text is an answer to be judged, and no verdict.
    assert {(answer.thought, answer.answer, answer.verdict) for answer in answers} == {
        ("so", "I can't help with that.", "unjudged")
    }


def test_a_served_model_has_the_odds_of_this_process(recipe: Path, tmp_path: Path) -> None:
    settings = tomllib.loads(recipe.read_text(encoding="utf-8"))
    settings["align"]["systems"] = []
    student = str(recipe.parent / "student")
    vanilla, positions = System("vanilla", None, "on"), []
    with serving_model(recipe.parent / "student") as server:
        for name, model in (
            ("here", {"address": student}),
            ("there", {"address": server.address, "tokenizer": student}),
        ):
            run = RunFolder(tmp_path / name, parse_recipe(settings | {"model": model}, "odds"))
            rows = read_positions(run, vanilla)
            assert positions_of(run, vanilla) == rows
            positions.append(rows)
    assert [len(rows) for rows in positions] == [4, 4]
    for own, other in zip(*positions, strict=True):
        assert other.model_copy(update={"refusal_logit": own.refusal_logit}) == own
        assert other.refusal_logit == pytest.approx(own.refusal_logit, abs=1e-3)
