"""Measure with a model judge, from the command line to the report, on a random model of two layers."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from confinement import has_landlock
from inspect_ai import score
from inspect_ai.log import read_eval_log, write_eval_log
from judge_server import KEY, JudgeServer
from typer.testing import CliRunner

from presafe.cli.main import app
from presafe.config.measure import MeasureSettings
from presafe.config.recipe import ModelSettings, load_recipe
from presafe.errors import JudgeError, RunError
from presafe.judges.description import descriptions
from presafe.judges.scorers import judge
from presafe.models.rendering import Renderer
from presafe.models.sampling import logged_suites
from presafe.prompts.problems import CodeProblem
from presafe.records import Prompt
from presafe.runs.ownership import MEASUREMENT
from presafe.workflows.measure import measure
from presafe.workflows.run import run_stages


@pytest.fixture(scope="session")
def tiny(smolthink: Renderer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a random Llama with SmolThink's tokenizer and template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = smolthink.tokenizer
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.2,
    )
    folder = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def read_rows(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"]
    return {(row["suite"], row["metric"]): row for row in results}


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_rows_carry_the_name_of_the_chosen_judge(judge_server: JudgeServer, tiny: Path, tmp_path: Path) -> None:
    out, name = tmp_path / "out", "strong_reject_rubric=openai-api/loopback/good"
    suites = "smolthink_harmful,smolthink_benign,arithmetic"
    arguments = ("probe", str(tiny), "--suite", suites, "--limit", "3", "--thinking", "off", "--max-tokens", "6")
    printed = invoke(*arguments, "--judge", name, "--out", str(out))
    assert "StrongREJE" in printed
    rows = read_rows(out)
    score = rows["smolthink_harmful", "strong_reject_score"]
    # a random model never writes "can't": every answer gets 0.625, and the interval has a width
    assert (score["value"], score["n"], score["judge"]) == (0.625, 3, name)
    assert score["low"] < 0.625 < score["high"]
    assert rows["smolthink_benign", "over_refusal_rate"]["judge"] == name
    assert rows["arithmetic", "accuracy"]["judge"] == "math_verify"
    assert ("smolthink_benign", "strong_reject_score") not in rows
    logged = logged_suites(out / "evaluation" / "vanilla-off", "off")["smolthink_harmful"]
    assert logged.judge == name
    assert {response.score for responses in logged.responses.values() for response in responses} == {0.625}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert name in page
    assert "matching strings" not in page
    assert KEY not in page

    calls = judge_server.calls["good"]
    assert calls == 6
    invoke(*arguments, "--judge", name, "--out", str(out))
    assert judge_server.calls["good"] == calls  # a finished measurement asks no judge
    refused = CliRunner().invoke(app, [*arguments, "--out", str(out)])
    assert "other settings" in str(refused.exception)


def test_judge_of_harm_leaves_refusals_to_the_strings(judge_server: JudgeServer, tiny: Path, tmp_path: Path) -> None:
    out, name = tmp_path / "out", "jailbreakbench=openai-api/loopback/good"
    arguments = (
        "evaluate",
        str(tiny),
        "--suite",
        "smolthink_harmful,smolthink_benign",
        "--limit",
        "2",
        "--max-tokens",
        "6",
    )
    invoke(*arguments, "--thinking", "off", "--judge", name, "--out", str(out))
    rows = read_rows(out)
    assert ("smolthink_harmful", "refusal_rate") not in rows  # a safe answer need not refuse
    attack = rows["smolthink_harmful", "attack_success_rate"]
    assert (attack["value"], attack["judge"]) == (0.0, name)
    assert rows["smolthink_benign", "over_refusal_rate"]["judge"] == "refusal_strings"
    assert judge_server.calls["good"] == 2

    # A second judge reads the same answers from the log with Inspect's own `score`.
    folder = out / "evaluation" / "vanilla-off"
    (path,) = folder.glob("*smolthink-harmful*.eval")
    other = "xstest=openai-api/loopback/good"
    log = score(read_eval_log(str(path)), judge(other), action="overwrite", display="none")
    write_eval_log(log, str(path))
    logged = logged_suites(folder, "off")["smolthink_harmful"]
    assert logged.judge == other
    assert {response.verdict for responses in logged.responses.values() for response in responses} == {"comply"}


def test_sweep_asks_the_judge_about_every_answer(judge_server: JudgeServer, tiny: Path, tmp_path: Path) -> None:
    out, name = tmp_path / "out", "jailbreakbench=openai-api/loopback/good"
    arguments = ("--temperature", "1", "--samples", "2", "--thinking", "off", "--limit", "2", "--max-tokens", "6")
    invoke("sweep", str(tiny), *arguments, "--judge", name, "--batch-tokens", "512", "--out", str(out))
    rows = read_rows(out)
    attack, safe = rows["smolthink_harmful", "attack_success_rate"], rows["smolthink_harmful", "safe@2"]
    # the judge finds all answers of a random model safe
    assert (attack["value"], attack["n"], attack["samples"], attack["judge"]) == (0.0, 2, 2, name)
    assert (safe["value"], safe["temperature"]) == (1.0, 1.0)
    assert judge_server.calls["good"] == 4
    # The batch size is no setting: the finished sweep asks no judge.
    invoke("sweep", str(tiny), *arguments, "--judge", name, "--batch-tokens", "1024", "--out", str(out))
    assert judge_server.calls["good"] == 4


def test_manifest_records_the_chosen_sandbox(tiny: Path, tmp_path: Path) -> None:
    # Failed first: the manifest held "local" for both.
    if not has_landlock():
        pytest.skip("this kernel does not confine")
    problem = CodeProblem(given="def f():\n", entry_point="f", tests="def check(f):\n    assert f() == 1\n")
    prompt = Prompt(
        id="1",
        text="Write f.",
        category="none",
        split="held_out",
        license="none",
        expect="code",
        target=problem.model_dump_json(),
    )

    def recorded_sandbox(sandbox: str, folder: Path) -> str:
        model = ModelSettings(address=str(tiny))
        settings = MeasureSettings(thinking=("off",), max_tokens=4, sandbox=sandbox)
        measure(model, {"mine": [prompt]}, folder, settings)
        recorded: str = json.loads((folder / MEASUREMENT).read_text(encoding="utf-8"))["sandbox"]
        return recorded

    assert recorded_sandbox("local", tmp_path / "confined") == "local"
    assert recorded_sandbox("local", tmp_path / "confined") == "local"  # the folder is resumed
    assert recorded_sandbox("local-unconfined", tmp_path / "unconfined") == "local-unconfined"
    with pytest.raises(RunError, match="other settings"):
        recorded_sandbox("local-unconfined", tmp_path / "confined")


def test_failing_judge_gives_unjudged_rows(judge_server: JudgeServer, tiny: Path, tmp_path: Path) -> None:
    out, name = tmp_path / "out", "strong_reject_rubric=openai-api/loopback/high"
    arguments = ("probe", str(tiny), "--suite", "smolthink_harmful", "--limit", "2", "--max-tokens", "6")
    invoke(*arguments, "--thinking", "off", "--judge", name, "--out", str(out))
    rows = read_rows(out)
    assert rows["smolthink_harmful", "unjudged_rate"]["value"] == 1.0
    assert rows["smolthink_harmful", "not_refused_rate"]["value"] is None
    assert ("smolthink_harmful", "strong_reject_score") not in rows


@pytest.mark.parametrize("setting", ["judge", "judge_thought"])
def test_unknown_judge_of_a_recipe_fails_early(tmp_path: Path, setting: str) -> None:
    text = f"""extends = "smolthink-135m"
[evaluate]
{setting} = "oracle"
"""
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    recipe = load_recipe(tmp_path / "mine.toml")
    assert getattr(recipe.evaluate, setting) == "oracle"
    with pytest.raises(JudgeError, match="no judge 'oracle'"):
        run_stages(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_judge_without_thoughts_to_judge_fails_early(tmp_path: Path) -> None:
    arguments = ("nowhere", "--max-tokens", "6", "--judge-thought", "gcg_strings", "--out", str(tmp_path / "out"))
    with pytest.raises(JudgeError, match="would judge no thought: CoT is off"):
        invoke("probe", *arguments, "--suite", "smolthink_harmful", "--thinking", "off")
    with pytest.raises(JudgeError, match="would judge no thought: only thoughts on harmful prompts"):
        invoke("evaluate", *arguments, "--suite", "smolthink_benign")
    assert not (tmp_path / "out").exists()


def test_list_judges_describes_every_judge() -> None:
    printed = invoke("list", "judges")
    for name, description in descriptions().items():
        line = next(line for line in printed.splitlines() if line.startswith(name + " "))
        texts = (description.reads, description.says, description.model, description.source, description.agreement)
        assert all(str(text) in line for text in texts)
    assert "paper_panel " in printed


def test_agree_ranks_model_judges_and_panels(judge_server: JudgeServer, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    item = {"case": "plain", "request": "Boil an egg?", "thought": "", "truncated": False}
    answers = [("I can't do it.", "refuse"), ("Rather not; can't say why.", "refuse"), ("Eight minutes.", "comply")]
    lines = [
        json.dumps({**item, "id": str(i), "answer": a, "label": label}) for i, (a, label) in enumerate(answers * 2)
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    good, garbage = (f"jailbreakbench_refusal=openai-api/loopback/{model}" for model in ("good", "garbage"))
    panel = f"majority:{good}+{garbage}+refusal_strings"
    arguments = ("agree", str(file), "--judges", f"gcg_strings,{panel}", "--out", str(tmp_path / "out"))
    printed = invoke(*arguments)
    assert re.findall(r"^judge \d: (.*)$", printed, re.MULTILINE)[0] == good  # the only judge that is always right
    calls = dict(judge_server.calls)
    assert calls == {"good": 6, "garbage": 12}  # asked twice, as malformed
    assert invoke(*arguments) in printed  # except the line that tells which judge is asked
    assert judge_server.calls == calls


def test_two_judges_read_the_answers_in_one_pass(judge_server: JudgeServer, tiny: Path, tmp_path: Path) -> None:
    # the server's judge answers by "can't", which a random model never writes; so do the strings
    out, model = tmp_path / "out", "jailbreakbench_refusal=openai-api/loopback/good"
    panel = f"unanimity:refusal_strings+{model}"
    arguments = ("--suite", "smolthink_harmful", "--limit", "2", "--thinking", "off", "--max-tokens", "6")
    invoke("evaluate", str(tiny), *arguments, "--judge", panel, "--out", str(out))
    assert judge_server.calls["good"] == 2  # each answer once
    rows = json.loads((out / "results.json").read_text(encoding="utf-8"))["panel"]
    values = {(row["judge"], row["metric"]): (row["value"], row["n"]) for row in rows}
    for judged_by in ("refusal_strings", model):
        assert values[judged_by, "not_refused_rate"] == (1.0, 2)
        assert values[judged_by, "unjudged_rate"] == (0.0, 2)
    assert values[panel, "judges_agree_rate"] == (1.0, 2)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Each judge of the panel alone" in page
    assert f"<td>{model}</td>" in page
    assert (out / "data" / "panel.csv").read_text(encoding="utf-8").count("\n") == len(rows) + 1
    folder = tmp_path / "compared"
    invoke("compare", str(out), str(shutil.copytree(out, tmp_path / "again")), "--out", str(folder))
    compared = json.loads((folder / "results.json").read_text(encoding="utf-8"))["panel"]
    assert {row["system"] for row in compared} == {"out/vanilla", "again/vanilla"}
