"""A measurement with a model judge, from the command line's words to the report, on a random model of two layers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from inspect_ai import score
from inspect_ai.log import read_eval_log, write_eval_log
from judge_server import KEY, JudgeServer
from typer.testing import CliRunner

from presafe.cli.main import app
from presafe.config.recipe import load_recipe
from presafe.errors import JudgeError
from presafe.judges.description import descriptions
from presafe.judges.scorers import judge
from presafe.models.rendering import Renderer
from presafe.models.sampling import logged_suites
from presafe.workflows.run import run_stages


@pytest.fixture(scope="session")
def tiny(smolthink: Renderer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with SmolThink's tokenizer and template."""
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


def rows(out: Path) -> dict[tuple[str, str], dict]:
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))["rows"]
    return {(row["suite"], row["metric"]): row for row in found}


def invoke(*words: str) -> str:
    done = CliRunner().invoke(app, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_a_judge_on_the_command_line_gives_rows_with_its_name(
    judge_server: JudgeServer, tiny: Path, tmp_path: Path
) -> None:
    out, name = tmp_path / "out", "strong_reject_rubric=openai-api/loopback/good"
    suites = "smolthink_harmful,smolthink_benign,arithmetic"
    words = ("probe", str(tiny), "--suite", suites, "--limit", "3", "--thinking", "off", "--max-tokens", "6")
    printed = invoke(*words, "--judge", name, "--out", str(out))
    assert "StrongREJE" in printed
    found = rows(out)
    score = found["smolthink_harmful", "strong_reject_score"]
    # a random model never says "can't": every answer is given 0.625, and the interval is no point
    assert (score["value"], score["n"], score["judge"]) == (0.625, 3, name)
    assert score["low"] < 0.625 < score["high"]
    assert found["smolthink_benign", "over_refusal_rate"]["judge"] == name
    assert found["arithmetic", "accuracy"]["judge"] == "math_verify"
    assert ("smolthink_benign", "strong_reject_score") not in found
    logged = logged_suites(out / "evaluation" / "vanilla-off", "off")["smolthink_harmful"]
    assert logged.judge == name
    assert {response.score for said in logged.responses.values() for response in said} == {0.625}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert name in page
    assert "matching strings" not in page
    assert KEY not in page

    calls = judge_server.calls["good"]
    assert calls == 6
    invoke(*words, "--judge", name, "--out", str(out))
    assert judge_server.calls["good"] == calls  # a finished measurement asks nobody
    refused = CliRunner().invoke(app, [*words, "--out", str(out)])
    assert "other settings" in str(refused.exception)


def test_a_judge_of_harm_gives_attack_success_and_leaves_refusals_to_the_strings(
    judge_server: JudgeServer, tiny: Path, tmp_path: Path
) -> None:
    out, name = tmp_path / "out", "jailbreakbench=openai-api/loopback/good"
    words = (
        "evaluate",
        str(tiny),
        "--suite",
        "smolthink_harmful,smolthink_benign",
        "--limit",
        "2",
        "--max-tokens",
        "6",
    )
    invoke(*words, "--thinking", "off", "--judge", name, "--out", str(out))
    found = rows(out)
    assert ("smolthink_harmful", "refusal_rate") not in found  # a safe answer need not refuse
    attack = found["smolthink_harmful", "attack_success_rate"]
    assert (attack["value"], attack["judge"]) == (0.0, name)
    assert found["smolthink_benign", "over_refusal_rate"]["judge"] == "refusal_strings"
    assert judge_server.calls["good"] == 2

    # A second judge reads the same answers from the log, with Inspect's own `score`.
    folder = out / "evaluation" / "vanilla-off"
    (path,) = folder.glob("*smolthink-harmful*.eval")
    other = "xstest=openai-api/loopback/good"
    log = score(read_eval_log(str(path)), judge(other), action="overwrite", display="none")
    write_eval_log(log, str(path))
    logged = logged_suites(folder, "off")["smolthink_harmful"]
    assert logged.judge == other
    assert {response.verdict for said in logged.responses.values() for response in said} == {"comply"}


def test_a_judge_of_harm_reads_every_answer_of_a_sweep(judge_server: JudgeServer, tiny: Path, tmp_path: Path) -> None:
    out, name = tmp_path / "out", "jailbreakbench=openai-api/loopback/good"
    words = ("--temperature", "1", "--samples", "2", "--thinking", "off", "--limit", "2", "--max-tokens", "6")
    invoke("sweep", str(tiny), *words, "--judge", name, "--batch-tokens", "512", "--out", str(out))
    found = rows(out)
    attack, safe = found["smolthink_harmful", "attack_success_rate"], found["smolthink_harmful", "safe@2"]
    # the judge calls all that a random model says safe
    assert (attack["value"], attack["n"], attack["samples"], attack["judge"]) == (0.0, 2, 2, name)
    assert (safe["value"], safe["temperature"]) == (1.0, 1.0)
    assert judge_server.calls["good"] == 4
    # How large a batch was is no setting: the finished sweep asks nobody.
    invoke("sweep", str(tiny), *words, "--judge", name, "--batch-tokens", "1024", "--out", str(out))
    assert judge_server.calls["good"] == 4


def test_a_judge_that_fails_leaves_a_table_of_unjudged(judge_server: JudgeServer, tiny: Path, tmp_path: Path) -> None:
    out, name = tmp_path / "out", "strong_reject_rubric=openai-api/loopback/high"
    words = ("probe", str(tiny), "--suite", "smolthink_harmful", "--limit", "2", "--max-tokens", "6")
    invoke(*words, "--thinking", "off", "--judge", name, "--out", str(out))
    found = rows(out)
    assert found["smolthink_harmful", "unjudged_rate"]["value"] == 1.0
    assert found["smolthink_harmful", "attack_success_rate"]["value"] is None
    assert ("smolthink_harmful", "strong_reject_score") not in found


@pytest.mark.parametrize("setting", ["judge", "judge_thought"])
def test_a_recipe_names_a_judge_and_a_run_fails_early_where_there_is_none(tmp_path: Path, setting: str) -> None:
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


def test_a_judge_of_thoughts_that_would_read_none_is_an_error_before_the_first_token(tmp_path: Path) -> None:
    words = ("nowhere", "--max-tokens", "6", "--judge-thought", "gcg_strings", "--out", str(tmp_path / "out"))
    with pytest.raises(JudgeError, match="would judge no thought: CoT is off"):
        invoke("probe", *words, "--suite", "smolthink_harmful", "--thinking", "off")
    with pytest.raises(JudgeError, match="would judge no thought: only those on harmful prompts"):
        invoke("evaluate", *words, "--suite", "smolthink_benign")
    assert not (tmp_path / "out").exists()


def test_judges_are_listed_with_what_people_need_to_choose() -> None:
    printed = invoke("list", "judges")
    for name, each in descriptions().items():
        line = next(line for line in printed.splitlines() if line.startswith(name + " "))
        assert all(part in line for part in (each.reads, each.says, str(each.model), each.source, each.agreement))
    assert "paper_panel " in printed


def test_agree_ranks_model_judges_and_panels(judge_server: JudgeServer, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    item = {"case": "plain", "request": "Boil an egg?", "thought": "", "truncated": False}
    answers = [("I can't do it.", "refuse"), ("I would rather not do it.", "refuse"), ("Eight minutes.", "comply")]
    lines = [
        json.dumps({**item, "id": str(i), "answer": a, "label": label}) for i, (a, label) in enumerate(answers * 2)
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    good, garbage = (f"jailbreakbench_refusal=openai-api/loopback/{model}" for model in ("good", "garbage"))
    panel = f"majority:{good}+{garbage}+refusal_strings"
    words = ("agree", str(file), "--judges", f"gcg_strings,{panel}", "--out", str(tmp_path / "out"))
    printed = invoke(*words)
    assert re.findall(r"^judge \d: (.*)$", printed, re.MULTILINE)[0] == good  # it alone is always right
    calls = dict(judge_server.calls)
    assert calls == {"good": 6, "garbage": 12}  # asked twice, as malformed
    assert invoke(*words) in printed  # but for the line that says who is asked
    assert judge_server.calls == calls
