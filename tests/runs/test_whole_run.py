"""A run on models of a few thousand weights: another teacher, and signal and alignment under `accelerate launch`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from command_line import start
from fork_server import Forked
from launching import NUM_PROCESSES, config_file
from safetensors.torch import load_file
from tiny_run import ANSWERED, REFUSED

from presafe.alignment.rows import thinking_off_rows
from presafe.config.recipe import load_recipe
from presafe.config.sources import FileSource
from presafe.errors import RunError, SignalError
from presafe.models.loading import load_renderer
from presafe.records import Difference, HistoryPoint, Score, Signal
from presafe.runs.io import read_jsonl
from presafe.signals.classifier import Classifier
from presafe.stages.align import system_rows
from presafe.stages.evaluate import differences_file
from presafe.stages.export import export_data
from presafe.stages.respond import decisions_of, responses_of
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import System
from presafe.stages.workload import Workload
from presafe.workflows.run import run_stages


@pytest.fixture(scope="module")
def run(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the recipe with one process, up to its alignment."""
    return run_stages(load_recipe(recipe), tmp_path_factory.mktemp("one") / "run", "align")


def test_teacher_can_be_another_model(run: RunFolder) -> None:
    decisions = decisions_of(run)
    assert [decision.query.text for decision in decisions.judged] == REFUSED + ANSWERED
    assert [decision.refused for decision in decisions.judged] == [True] * 4 + [False] * 4
    assert {response.answer for response in responses_of(run, "teacher")} == {
        "I can't help with that.",
        "Sure, here it is.",
    }
    # the thoughts are the student's own: eight tokens, cut
    traces = responses_of(run, "traces")
    assert len(traces) == 2  # a quarter of each kind
    assert all(response.truncated and response.num_tokens == 8 for response in traces)
    assert (run.path / "alignment" / "presafe" / "adapter" / "adapter_config.json").exists()


def test_rows_of_a_run_are_exported(run: RunFolder, tmp_path: Path) -> None:
    paths = export_data(run, "trl", tmp_path / "data")
    rows = {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in paths}
    assert [row["query"] for row in rows["refuse"]] == [f"a {text}" for text in REFUSED]
    signals = {
        signal.prompt_id: signal.probability for signal in read_jsonl(run.path / "signals" / "signals.jsonl", Signal)
    }
    assert all(row["signal"] == signals[row["id"]] for kind in rows.values() for row in kind)
    with pytest.raises(RunError, match="trains no `system` 'sft'"):
        export_data(run, "trl", tmp_path / "none", "sft")


def test_student_alone_has_no_decision_to_learn(recipe: Path, tmp_path: Path) -> None:
    settings = load_recipe(recipe)
    alone = settings.model_copy(update={"respond": settings.respond.model_copy(update={"teacher": None})})
    with pytest.raises(SignalError, match="there is no decision to learn"):
        run_stages(alone, tmp_path / "run", "respond")


def test_classifier_can_read_the_teachers_answers(run: RunFolder, recipe: Path, tmp_path: Path) -> None:
    settings = load_recipe(recipe)
    signal = settings.signal.model_copy(update={"reads": "query_and_answer", "epochs": 30, "learning_rate": 1e-2})
    both = run_stages(settings.model_copy(update={"signal": signal}), tmp_path / "run", "signal")
    queries = [query.text for query in both.workload.alignment]
    decided = [response.answer for response in responses_of(both, "decided")]
    classifier = Classifier(both.path / "signals" / "classifier", signal)
    of_run = [signal.probability for signal in read_jsonl(both.path / "signals" / "signals.jsonl", Signal)]
    assert of_run == pytest.approx(classifier.probabilities(queries, decided), abs=1e-6)
    # the answer changes p′ of every query
    refused, answered = (
        classifier.probabilities(queries, [answer] * len(queries))
        for answer in ("I can't help with that.", "Sure, here it is.")
    )
    assert all(high > low + 1e-4 for high, low in zip(refused, answered, strict=True))
    assert not (run.path / "responses" / "decided").exists()  # by default nobody asks for them


def test_cot_off_is_trained_and_measured(recipe: Path, tmp_path: Path) -> None:
    settings = load_recipe(recipe)
    model = settings.respond.teacher
    assert model is not None
    sums = tmp_path / "sums.jsonl"  # a problem without an answer counts as wrong, so that every two can be compared
    sums.write_text("".join(json.dumps({"prompt": f"{n} + {n}", "answer": str(2 * n)}) + "\n" for n in range(4)))
    suites = {"sums": FileSource(file=sums, expect="answer", target_column="answer")}
    both = settings.model_copy(
        update={
            "model": model,  # which declines what is red with CoT off
            "align": settings.align.model_copy(update={"systems": ("sft", "presafe"), "thinking_off_share": 0.5}),
            "evaluate": settings.evaluate.model_copy(update={"aligned_thinking": ("on", "off"), "suites": suites}),
        }
    )
    run = run_stages(both, tmp_path / "run", "report")
    responses = {response.prompt_id: response for response in responses_of(run, "own_off")}
    kept = [
        query.text
        for query in Workload(both).alignment
        if responses[query.id].verdict == ("refuse" if query.expect == "refuse" else "comply")
    ]
    assert kept  # the model is not perfect on queries that it was not taught
    ours, signals = System("presafe", 0, "on"), read_jsonl(run.path / "signals" / "signals.jsonl", Signal)
    renderer = load_renderer(model.address)
    every = thinking_off_rows(Workload(both).alignment, responses, renderer)
    rows = system_rows(run, ours, renderer, responses_of(run, "own"), signals, every)
    off = [row for row in rows if row.kind == "thinking_off"]
    assert len(off) == min(len(kept), len(rows) - len(off))
    assert all(row.signal is None for row in off)
    assert all(row.signal is not None for row in rows if row.kind != "thinking_off")
    scores = read_jsonl(run.path / "evaluation" / "scores.jsonl", Score)
    measured = {(score.system, score.thinking) for score in scores}
    assert measured == {(name, mode) for name in ("vanilla", "sft", "presafe") for mode in ("on", "off")}
    compared = {
        (difference.against, difference.against_thinking, difference.system, difference.thinking)
        for difference in read_jsonl(differences_file(run), Difference)
    }
    assert compared == {
        *((name, "on", name, "off") for name in ("vanilla", "sft", "presafe")),
        *((name, mode, "presafe", mode) for name in ("vanilla", "sft") for mode in ("on", "off")),
        ("vanilla", "off", "presafe", "on"),
    }
    assert not (run.path / "evaluation" / "positions" / "presafe-off.jsonl").exists()


def on_two_threads(recipe: Path, out: Path) -> Forked:
    """Start the run up to its alignment."""
    return start("run", str(recipe), "--out", str(out), "--until", "align", OMP_NUM_THREADS="2")


def test_training_in_parallel_resumes_to_the_same_systems(run: RunFolder, recipe: Path, tmp_path: Path) -> None:
    file = tmp_path / "both.toml"
    both = recipe.read_text().replace('["presafe"]', '["sft", "presafe"]\nover_refusal = 0.5')
    file.write_text(both.replace("max_steps = 6", "max_steps = 80\nsave_steps = 5"))
    one_by_one, together = tmp_path / "one", tmp_path / "two"
    run_stages(load_recipe(file), one_by_one, "align")
    shutil.copytree(one_by_one, together)
    (together / "stages" / "align").unlink()
    shutil.rmtree(together / "alignment")

    process = on_two_threads(file, together)
    started: set[str] = set()
    for line in process.stderr:
        started |= {name for name in ("sft", "presafe") if line.startswith(f"  {name}: 16/80")}
        if len(started) == 2:  # neither has waited for the other
            break
    helpers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    psutil.wait_procs(helpers, timeout=20)
    assert not list(together.glob("alignment/*/history.jsonl"))

    _, errors = on_two_threads(file, together).communicate(timeout=240)
    assert "2 signal: done before" in errors
    for name in ("sft", "presafe"):
        assert f"  {name}: 8/80" not in errors  # it resumed from a checkpoint
        ours, theirs = (folder / "alignment" / name for folder in (together, one_by_one))
        assert (ours / "history.jsonl").read_text() == (theirs / "history.jsonl").read_text()
        assert (ours / "operating_point.json").read_text() == (theirs / "operating_point.json").read_text()
        for key, value in load_file(ours / "adapter" / "adapter_model.safetensors").items():
            assert torch.equal(value, load_file(theirs / "adapter" / "adapter_model.safetensors")[key])


def launched(recipe: Path, out: Path) -> subprocess.Popen[str]:
    """Start the command of docs/scale.md that aligns on several GPUs, with two processes on the CPU."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config_file("ddp"))),
            *("--num_processes", str(NUM_PROCESSES), "--mixed_precision", "no", "--main_process_port", "0"),
            *("-m", "presafe.cli.main", "run", str(recipe), "--out", str(out), "--until", "align"),
        ],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_same_alignment(left: Path, right: Path) -> None:
    """Check that two trainings are the same, up to the order in which float32 values of a step are added."""
    assert (left / "signals" / "signals.jsonl").read_text() == (right / "signals" / "signals.jsonl").read_text()
    alone, shared = (folder / "alignment" / "presafe" for folder in (left, right))
    # each process took one of the two passes of a step: together they saw the rows that one process saw
    alone_history, shared_history = (read_jsonl(folder / "history.jsonl", HistoryPoint) for folder in (alone, shared))
    assert [point.step for point in shared_history] == [1, 2, 3, 4, 5, 6]
    for before, after in zip(alone_history, shared_history, strict=True):
        assert (after.nll, after.bce) == pytest.approx((before.nll, before.bce), rel=1e-5)
    for name in ("adapter/adapter_model.safetensors", "presafe_head.safetensors"):
        ours, theirs = (load_file(folder / name) for folder in (alone, shared))
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert value.numpy() == pytest.approx(theirs[key].numpy(), rel=1e-3, abs=1e-4), key
    assert (alone / "adapter/adapter_config.json").read_text() == (shared / "adapter/adapter_config.json").read_text()


def test_a_launch_aligns_with_both_processes_also_when_killed(run: RunFolder, recipe: Path, tmp_path: Path) -> None:
    # One test of both: each launch imports torch in three processes.
    out = tmp_path / "run"
    process = launched(recipe, out)
    assert process.stderr is not None
    errors = ""
    for line in process.stderr:
        errors += line
        if line.startswith("  presafe: 3/6"):
            break
    else:
        pytest.fail(errors[-3000:])
    # printed once, by the first process
    assert [errors.count(line) for line in ("1 respond", "2 signal", "3 align")] == [1, 1, 1]
    # the first process, which holds the folder and writes; a launcher that sees it die ends the others
    (first,) = (child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == "0")
    first.send_signal(signal.SIGKILL)
    process.communicate(timeout=240)
    assert process.returncode != 0
    assert not (out / "alignment" / "presafe" / "history.jsonl").exists()
    assert list((out / "alignment" / "presafe" / "checkpoints").glob("checkpoint-*"))

    process = launched(recipe, out)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-3000:]
    assert "2 signal: done before" in errors
    assert "  presafe: 1/6" not in errors  # it resumed from the checkpoint of step 2 or 3
    assert output.count("stopped as asked") == 1
    for name in ("teacher", "own", "traces"):
        ours, theirs = (responses_of(folder, name) for folder in (run, RunFolder.existing(out)))
        assert ours == theirs
    assert_same_alignment(run.path, out)
