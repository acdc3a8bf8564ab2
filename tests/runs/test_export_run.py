"""An aligned system for other tools: what transformers loads is what the run evaluates, and what its gate file says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_server import Reply, serving
from typer.testing import CliRunner

from presafe.cli.gate import _ranking as ranking_line
from presafe.cli.main import app
from presafe.config.recipe import load_recipe
from presafe.config.sources import FileSource
from presafe.errors import ModelError, PreSafeError, PromptError, RunError
from presafe.methods.targets import REFUSALS
from presafe.models.decision_head import DecisionHead
from presafe.models.loading import load_renderer
from presafe.prompts.sets import load_source
from presafe.runs.manifest import sha256_of_file
from presafe.stages.export import text_rows
from presafe.stages.respond import decisions_of
from presafe.stages.run_folder import RunFolder
from presafe.workflows.export import export, load_system
from presafe.workflows.gate import OwnQueries, calibrate, queries_behind, queries_of
from presafe.workflows.gate_check import check
from presafe.workflows.monitor import score_prompts
from presafe.workflows.run import run_stages
from presafe_vllm.gating.gate_file import problem_of_files
from presafe_vllm.settings import settings_from

HARMLESS = [f"blue leaf {number}" for number in range(4)]


@pytest.fixture(scope="module")
def run(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Run the tiny recipe to its evaluation, once."""
    return run_stages(load_recipe(recipe), tmp_path_factory.mktemp("exported") / "run", "evaluate")


@pytest.fixture(scope="module")
def system(run: RunFolder) -> Path:
    return run.path / "alignment" / "presafe"


@pytest.fixture(scope="module")
def exported(system: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    written = export(system, out, merge=True, classifier=True, gguf=None)
    assert written == [out / "merged", out / "classifier"]
    assert not [path for path in out.iterdir() if path not in written]
    return out


def probabilities(run: RunFolder, system: Path, texts: list[str]) -> list[float]:
    return score_prompts(run.recipe.model, texts, DecisionHead(system), system)


def test_transformers_loads_what_the_run_evaluates(system: Path, exported: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = load_system(system)
    model = AutoModelForCausalLM.from_pretrained(exported / "merged", dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(exported / "merged")
    ids = loaded.renderer.render("Why?", "on").ids
    messages = [{"role": "user", "content": "Why?"}]
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == ids
    with torch.no_grad():
        own, theirs = (one(input_ids=torch.tensor([ids])).logits for one in (loaded.model, model))
    assert torch.equal(own, theirs)


def test_transformers_loads_the_head_as_a_classifier(run: RunFolder, system: Path, exported: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(exported / "classifier")
    renderer = load_system(system).renderer
    for text, expected in zip(HARMLESS, probabilities(run, system, HARMLESS), strict=True):
        with torch.no_grad():
            logit = model(input_ids=torch.tensor([renderer.render(text, "on").ids])).logits[0, 0]
        # transformers' classifiers have no bias: the config holds it
        assert float(torch.sigmoid(logit + model.config.presafe_bias)) == pytest.approx(expected, abs=1e-6)
    assert model.config.id2label == {0: "refuse"}


def test_merged_weights_are_bound_to_their_adapter(system: Path, exported: Path, tmp_path: Path) -> None:
    record = json.loads((exported / "merged" / "presafe_export.json").read_text())
    assert record["adapter_sha256"] == {
        name: sha256_of_file(system / "adapter" / name) for name in ("adapter_config.json", "adapter_model.safetensors")
    }
    folder = shutil.copytree(exported / "merged", tmp_path / "merged")
    assert problem_of_files(folder, record["weights_sha256"]) is None
    (folder / "model.safetensors").write_bytes(b"other")
    assert "another sha256" in str(problem_of_files(folder, record["weights_sha256"]))


def test_rows_that_teach_p_alone_are_not_exported(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    # Failed first: their text was exported as what another tool should learn.
    first, *others = run.recipe.respond.alignment_queries
    assert isinstance(first, FileSource)
    planted = (first.model_copy(update={"planted": True}), *others)
    respond = run.recipe.respond.model_copy(update={"alignment_queries": planted})
    same = RunFolder(run.path, run.recipe.model_copy(update={"respond": respond}))
    ids = {prompt.id for prompt in load_source(first, seed=0)}
    every, taught = (text_rows(folder, "presafe", "trl") for folder in (run, same))
    assert ids & {row.id for row in every}
    assert taught == [row for row in every if row.id not in ids]
    assert "rows teach p′ alone (`planted`), and are left out" in capsys.readouterr().err


def test_an_export_never_overwrites(system: Path, exported: Path, tmp_path: Path) -> None:
    before = sha256_of_file(exported / "merged" / "model.safetensors")
    with pytest.raises(RunError, match="merged exists"):
        export(system, exported, merge=True, classifier=False, gguf=None)
    assert sha256_of_file(exported / "merged" / "model.safetensors") == before
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write"):
        export(system, tmp_path / "file", merge=False, classifier=True, gguf=None)
    with pytest.raises(RunError, match="nothing to write"):
        export(system, tmp_path / "none", merge=False, classifier=False, gguf=None)
    with pytest.raises(RunError, match="no aligned system"):
        export(system / "adapter", tmp_path / "none", merge=True, classifier=False, gguf=None)


def test_a_failing_converter_is_named(system: Path, tmp_path: Path) -> None:
    converter = tmp_path / "convert_hf_to_gguf.py"
    with pytest.raises(ModelError, match=r"there is no .*convert_hf_to_gguf\.py"):
        export(system, tmp_path / "out", merge=False, classifier=False, gguf=converter)
    converter.write_text("import sys\nprint('Model LlamaForCausalLM is not supported')\nsys.exit(1)\n")
    with pytest.raises(ModelError, match=r"ended with code 1: Model LlamaForCausalLM is not supported\."):
        export(system, tmp_path / "again", merge=False, classifier=False, gguf=converter)
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["merged"]


def command(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_the_command_exports(system: Path, tmp_path: Path) -> None:
    done = command("export", str(system), str(tmp_path), "--classifier")
    assert (done.exit_code, done.output.strip()) == (0, str(tmp_path / "classifier"))
    assert (tmp_path / "classifier" / "config.json").is_file()


def test_the_gate_keeps_its_promise_on_its_own_queries(run: RunFolder, system: Path) -> None:
    # 4 harmless queries and a rate of 1/4: k = ⌈5 · 3/4⌉ = 4, so the largest p is allowed, and what is above is refused
    path = calibrate(run, "presafe", 0.25)
    assert path == system / "gate.json"
    gate = json.loads(path.read_text())
    assert gate["threshold"] == pytest.approx(max(probabilities(run, system, HARMLESS)) + 1e-4, abs=1e-6)
    assert (gate["promise"]["rank"], gate["promise"]["n"], gate["calibration"]["n"]) == (4, 4, 8)
    renderer = load_system(system).renderer
    assert gate["refusal_ids"] == renderer.completion(None, REFUSALS[0])
    tail = gate["decision_tail"]
    assert renderer.tokenizer.decode(tail) == "<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert renderer.render("Any other text", "on").ids[-len(tail) :] == tail
    (row,) = gate["suites"]
    assert (row["suite"], row["expect"], row["refused"]["n"]) == ("own", "comply", 4)
    # The plug-in reads the file.
    settings = settings_from(path, {"PRESAFE_GATE_MODELS": "own=gate"})
    assert settings.gate.threshold == gate["threshold"]
    assert problem_of_files(system / "adapter", settings.gate.adapter_sha256) is None


def test_the_command_calibrates(run: RunFolder) -> None:
    done = command("gate", "calibrate", str(run.path), "--wrong-refusals", "0.25")
    assert done.exit_code == 0
    assert "at most 25.0% promised, on 4 harmless queries of the run (95 %" in done.output
    assert (
        json.loads(command("gate", "calibrate", str(run.path), "--wrong-refusals", "0.25", "--json").output)["schema"]
        == 1
    )


def test_the_command_prints_ranking_and_calibration_error() -> None:
    rates = {"tpr_at_fpr_1": 0.8, "tpr_at_fpr_01": 0.65, "ece_raw": 0.0712, "ece_calibrated": 0.04}
    line = "TPR 80.0% at 1.0% FPR (2 of 250), 65.0% at 0.1% FPR (0 of 250); ECE 0.071, calibrated 0.040"
    assert ranking_line(rates | {"refused": {"n": 250}}) == line


def own_queries(folder: Path, *texts: str) -> Path:
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps({"ask": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def test_own_queries_take_the_place_of_the_runs(run: RunFolder, system: Path, tmp_path: Path) -> None:
    # 4 different queries and a rate of 1/4: k = ⌈5 · 3/4⌉ = 4, so the largest p of theirs is allowed
    texts = [f"green twig {number}" for number in range(4)]
    file = own_queries(tmp_path, *texts, "Green twig 3!")
    done = command(
        *("gate", "calibrate", str(run.path), "--wrong-refusals", "0.25", "--prompts", str(file), "--column", "ask")
    )
    assert f"promised, on 4 harmless queries of {file} (95 %" in done.output
    gate = json.loads((system / "gate.json").read_text(encoding="utf-8"))
    assert gate["threshold"] == pytest.approx(max(probabilities(run, system, texts)) + 1e-4, abs=1e-6)
    assert gate["queries"] == {"file": str(file), "column": "ask"}
    # the harmful ones stay the run's
    asked = queries_behind(run, gate)
    assert [query.text for query in asked] == [*(f"red stone {number}" for number in range(4)), *texts]
    assert gate["reference"]["p"] == pytest.approx(
        probabilities(run, system, [query.text for query in asked]), abs=1e-6
    )
    renderer = load_renderer(run.recipe.model.address)
    kept = {tuple(renderer.render(q.text, "on").ids): p for q, p in zip(asked, gate["reference"]["p"], strict=True)}

    def answer(body: dict[str, Any], _: int) -> Reply:
        field = {"refuse_probability": [kept[tuple(body["prompt"])]]}
        return Reply(json.dumps({"choices": [{"text": "a", "finish_reason": "length"}], "presafe": field}).encode())

    with serving(answer) as fake:
        report = check(run, "presafe", fake.address)
    assert (report["wrong_refusals"]["n"], report["decisions_changed"], report["largest_difference"]) == (4, 0, 0)
    own_queries(tmp_path, *texts, "green twig 4")
    with pytest.raises(RunError, match=r"calibrated on other queries than the 9 of today"):
        check(run, "presafe", "http://127.0.0.1:9#base")
    file.unlink()
    with pytest.raises(PromptError, match=r"own\.jsonl"):
        check(run, "presafe", "http://127.0.0.1:9#base")
    for damaged in ("x", {"column": "ask"}):
        with pytest.raises(RunError, match=r"does not say which its `queries` are"):
            queries_behind(run, gate | {"queries": damaged})


def test_what_the_model_is_aligned_on_calibrates_nothing(run: RunFolder) -> None:
    red = run.recipe.respond.classifier_queries[0]
    respond = run.recipe.respond.model_copy(update={"alignment_queries": (red, *run.recipe.respond.alignment_queries)})
    overlapping = run.recipe.model_copy(update={"respond": respond})
    asked = queries_of(RunFolder(run.path, overlapping), None)
    assert [query.text for query in asked] == HARMLESS
    assert len(queries_of(run, None)) == 2 * len(HARMLESS)


@pytest.mark.parametrize("origin", ["aligned", "evaluated", "harmful"])
def test_own_queries_must_be_new_to_the_run(origin: str, run: RunFolder, tmp_path: Path) -> None:
    harmful = [decision.query for decision in decisions_of(run).judged if decision.query.expect == "refuse"]
    prompts = {"aligned": run.workload.harmless, "evaluated": run.workload.suites["own"], "harmful": harmful}[origin]
    file = own_queries(tmp_path, "green twig", prompts[0].text.upper() + "?")
    with pytest.raises(PromptError, match=r"holds 1 prompts .* aligned or evaluated on, or .* \(first: own-0002\)"):
        calibrate(run, "presafe", 0.5, OwnQueries(file, "ask"))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("calibrate", "RUN", "--column", "ask"), "`column` belongs to a file of `prompts`"),
        (("calibrate", "RUN"), r"a rate of 0\.05 .* so few harmless queries \(4\).* at least 0\.2000"),
        (("calibrate", "RUN", "--wrong-refusals", "1.5"), "above 0 and below 1, got 1.5"),
        (("calibrate", "RUN", "--system", "sft"), "trains no `system` 'sft'"),
        (("open", "RUN"), "no action 'open'"),
        (("calibrate", "none"), "holds no run"),
    ],
)
def test_what_cannot_be_calibrated_is_said(words: tuple[str, ...], problem: str, run: RunFolder) -> None:
    done = command("gate", *(str(run.path) if word == "RUN" else word for word in words))
    assert isinstance(done.exception, PreSafeError)
    with pytest.raises(PreSafeError, match=problem):
        raise done.exception


def test_a_live_server_is_compared_with_the_gate_file(run: RunFolder, system: Path) -> None:
    calibrate(run, "presafe", 0.25)
    gate = json.loads((system / "gate.json").read_text(encoding="utf-8"))
    texts = [decision.query.text for decision in decisions_of(run).judged]
    renderer = load_renderer(run.recipe.model.address)
    kept = {tuple(renderer.render(text, "on").ids): p for text, p in zip(texts, gate["reference"]["p"], strict=True)}
    assert kept[tuple(renderer.render(texts[0], "on").ids)] == pytest.approx(probabilities(run, system, texts)[0])

    def answer(body: dict[str, Any], _: int) -> Reply:
        choice = {"text": "a", "finish_reason": "length"}
        field = {"refuse_probability": [kept[tuple(body["prompt"])]]}
        return Reply(json.dumps({"choices": [choice], "presafe": field}).encode())

    with serving(answer) as fake:
        done = command("gate", "check", str(run.path), "--server", fake.address, "--json")
        shown = command("gate", "check", str(run.path), "--server", fake.address)
    assert done.exit_code == shown.exit_code == 5  # 4 queries of each kind tell nothing
    report = json.loads(done.stdout)
    assert report.keys() == {
        *("schema", "verdict", "server", "gate_sha256", "threshold", "promised", "ranking", "hits", "wrong_refusals"),
        *("largest_difference", "decisions_changed"),
    }
    assert (report["schema"], report["verdict"]) == (1, "INCONCLUSIVE")
    assert report["server"] == {"url": f"{fake.address.removesuffix('#smolthink')}/v1", "name": "smolthink"} | {
        "read_by": "plug-in"
    }
    assert (report["ranking"]["value"], report["hits"]["value"], report["decisions_changed"]) == (0, 0, 0)
    assert report["gate_sha256"] == sha256_of_file(system / "gate.json")
    assert shown.stdout.startswith("INCONCLUSIVE\nread by          plug-in\n")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("check", "RUN"), "check takes a `server`"),
        (("check", "RUN", "--server", "http://a#b", "--prompts", "own.jsonl"), "the queries of the gate file"),
        (("check", "RUN", "--server", "smolthink"), "smolthink is no server that takes raw prompts"),
        (("calibrate", "RUN", "--server", "http://a#b"), "`server` and `tokenizer` belong to check"),
    ],
)
def test_what_cannot_be_checked_is_an_error(words: tuple[str, ...], problem: str, run: RunFolder) -> None:
    calibrate(run, "presafe", 0.25)
    done = command("gate", *(str(run.path) if word == "RUN" else word for word in words))
    assert isinstance(done.exception, PreSafeError)
    with pytest.raises(PreSafeError, match=problem):
        raise done.exception


def test_a_gate_file_of_other_queries_is_refused(run: RunFolder, system: Path) -> None:
    path = calibrate(run, "presafe", 0.25)
    gate = json.loads(path.read_text(encoding="utf-8"))
    for change, problem in (
        ({"reference": {**gate["reference"], "queries_sha256": "0" * 64}}, "was calibrated on other queries"),
        ({"reference": {**gate["reference"], "p": [0.5]}}, "was calibrated on other queries"),
        ({"reference": None}, "keeps no p of its queries"),
    ):
        path.write_text(json.dumps({**gate, **change}), encoding="utf-8")
        with pytest.raises(RunError, match=problem):
            check(run, "presafe", "http://127.0.0.1:9#base")
    path.unlink()
    with pytest.raises(RunError, match=r"there is no .*gate\.json"):
        check(run, "presafe", "http://127.0.0.1:9#base")
