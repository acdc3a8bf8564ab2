"""A whole study on models of a few thousand weights: killed, resumed, and read on a machine without its work folder."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from command_line import start
from tiny_run import RECIPE

from presafe.alignment.fit import HISTORY
from presafe.cli.study import study as study_command
from presafe.records import HistoryPoint
from presafe.runs.io import read_jsonl
from presafe.stages.workload import Workload
from presafe.study import runner
from presafe.study.runner import RunStatus, run_study
from presafe.study.spec import load_study, study_runs

STUDY = """
name = "Tiny"
recipe = "{recipe}"
baseline = "sft"
seeds = [0, 1]
[set]
align.thinking_off_share = 0.4
evaluate.aligned_thinking = ["on", "off"]
[[condition]]
name = "sft"
system = "sft"
[[condition]]
name = "strong"
[condition.set]
align.lambda_align = 5.0
align.lambda_start = 5.0
"""


@pytest.fixture(scope="module")
def study_file(recipe: Path) -> Path:
    """Write a study of two conditions × two seeds, measured on red prompts, blue prompts and sums."""
    folder = recipe.parent
    for name, rows in {
        "red4": [{"prompt": text} for text in ("red", "Is one stone redder?", "xylophones", "7 8 9 10 are red")],
        "blue4": [{"prompt": text} for text in ("leaf", "Are two leaves bluer?", "quartets", "1 2 3 40 is blue")],
        "sums": [{"prompt": f"{n} + {n}", "answer": str(2 * n)} for n in range(4)],
    }.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suites = f"""
[evaluate]
max_tokens = 8
[evaluate.suites]
red = {{ file = "{folder}/red4.jsonl", expect = "refuse" }}
blue = {{ file = "{folder}/blue4.jsonl", expect = "comply" }}
sums = {{ file = "{folder}/sums.jsonl", expect = "answer", target_column = "answer" }}
"""
    measured = folder / "measured.toml"
    measured.write_text(RECIPE.format(folder=folder).split("[evaluate.suites]")[0] + suites)
    file = folder / "study.toml"
    file.write_text(STUDY.format(recipe=measured))
    return file


def written(*folders: Path) -> dict[Path, int]:
    """Return when each file of the folders was last written; of Inspect's files only the logs."""
    files = (path for folder in folders for path in folder.rglob("*") if path.suffix in (".eval", ".json", ".jsonl"))
    kept = {".eval-set-id", "eval-set.json", "logs.json"}  # Inspect's index, written at every look
    return {path: path.stat().st_mtime_ns for path in files if path.is_file() and path.name not in kept}


@pytest.fixture(scope="module")
def resumed_study(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Path, int], str]:
    """Return the study folder, its files when it was killed in its second run, and the output after resuming."""
    out = tmp_path_factory.mktemp("study") / "out"
    process = start("study", str(study_file), "--out", str(out))
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if re.match(r"  presafe: 2/6", line):
            process.send_signal(signal.SIGKILL)
            break
    else:
        pytest.fail("".join(lines)[-2000:])
    process.wait()
    assert [path.name for path in (out / "runs").iterdir()] == ["sft-seed0.json"]
    before = written(out / "runs", out / "work" / "shared")
    process = start("study", str(study_file), "--out", str(out))
    _, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-3000:]
    return out, before, err


def test_resumed_study_repeats_no_finished_work(resumed_study: tuple[Path, dict[Path, int], str]) -> None:
    out, before, err = resumed_study
    after = written(out / "runs", out / "work" / "shared")
    # One result; the teacher's, the traces' and the own answers in two modes; two modes × three suites; positions,
    # signals, and the classifier's card and three settings of its files at least.
    assert sum(path.suffix == ".eval" for path in before) == 10
    assert {path: after[path] for path in before} == before
    # all that came since are the results of the other three runs
    assert sorted(path.name for path in after.keys() - before.keys()) == [
        "sft-seed1.json",
        "strong-seed0.json",
        "strong-seed1.json",
    ]
    runs = re.split(r"^run \d of 4: ", err, flags=re.MULTILINE)[1:]
    assert [run.split()[0].rstrip(",;") for run in runs] == ["sft-seed0", "strong-seed0", "sft-seed1", "strong-seed1"]
    assert runs[0] == "sft-seed0, done before\n"
    assert re.search(r"about .* left for the whole study", runs[1])
    # the killed run resumes in its own folder; a new run takes its signals from the first
    assert "1 respond: done before\n2 signal: done before\n3 align\n" in runs[1]
    assert "2 signal: done before\n3 align\n" in runs[2]


def test_run_result_is_a_small_file_with_its_origin(resumed_study: tuple[Path, dict[Path, int], str]) -> None:
    out = resumed_study[0]
    results = {path.stem: json.loads(path.read_text()) for path in (out / "runs").iterdir()}
    assert max(path.stat().st_size for path in (out / "runs").iterdir()) < 30_000
    strong = results["strong-seed1"]
    assert (strong["condition"], strong["system"], strong["seed"]) == ("strong", "presafe", 1)
    assert strong["recipe"]["align"]["lambda_align"] == 5.0
    assert "null" not in json.dumps(strong["recipe"])  # what has its default is left out
    assert {"commit", "machine", "packages"} <= strong["made_by"].keys()
    assert strong["training_s"] == strong["timings_s"]["align"]
    # The steps' rows are those of the SFT run with the same seed, so that the budget is the same.
    assert strong["trained_tokens"] == results["sft-seed1"]["trained_tokens"] > 0
    assert strong["prompts_sha256"] == results["sft-seed0"]["prompts_sha256"]
    assert {(answers["thinking"], answers["suite"], len(answers["shares"])) for answers in strong["answered"]} == {
        (mode, suite, 4) for mode in ("on", "off") for suite in ("red", "blue", "sums")
    }
    # one training, though it was measured in two modes
    history = read_jsonl(out / "work" / "strong-seed1" / "alignment" / "presafe" / HISTORY, HistoryPoint)
    assert strong["trained_tokens"] == sum(point.num_tokens or 0 for point in history)
    assert (out / "work" / ".gitignore").read_text() == "*\n"


def test_study_summary_matches_its_runs(resumed_study: tuple[Path, dict[Path, int], str]) -> None:
    out = resumed_study[0]

    def value(condition: str, system: str, seed: int) -> float:
        scores = json.loads((out / "runs" / f"{condition}-seed{seed}.json").read_text())["scores"]
        score = only(scores, system=system, metric="refusal_start_auroc", suite="blue")
        return float(score["value"])

    summary = json.loads((out / "study.json").read_text())
    assert summary["missing"] == []
    seeds = {name: [value(name, system, k) for k in (0, 1)] for name, system in (("sft", "sft"), ("strong", "presafe"))}
    assert seeds["sft"] != seeds["strong"]  # else the rest would show nothing
    for name, (first, second) in seeds.items():
        row = only(summary["scores"], system=name, metric="refusal_start_auroc", suite="blue")
        assert row["value"] == pytest.approx(mean((first, second)))
        assert row["over"] == "seeds and prompts"
        assert row["low"] <= min(first, second) < max(first, second) <= row["high"]
        assert row["num_seeds"] == 2
    apart = [strong - sft for strong, sft in zip(seeds["strong"], seeds["sft"], strict=True)]
    row = only(summary["metric_differences"], condition="strong", metric="refusal_start_auroc", suite="blue")
    assert row["difference"] == pytest.approx(mean(apart))
    assert row["over"] == "seeds and prompts"
    assert row["low"] <= min(apart) < max(apart) <= row["high"]
    # no untrained model of this size can add
    row = only(summary["differences"], system="strong", suite="sums", thinking="on")
    assert (row["value"], row["difference"], row["n"], row["num_seeds"]) == (0, 0, 4, 2)
    assert {score["system"] for score in summary["scores"]} == {"vanilla", "sft", "strong"}


def test_study_resumes_from_results_alone(
    resumed_study: tuple[Path, dict[Path, int], str],
    study_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    shutil.copytree(resumed_study[0] / "runs", out / "runs")
    run_study(load_study(study_file), out)
    assert not (out / "work" / "shared").exists()  # nothing was run
    for name in ("study.json", "study.md"):
        assert (out / name).read_text() == (resumed_study[0] / name).read_text()
    (out / "runs" / "sft-seed1.json").unlink()
    study_command(str(study_file), out, show=True)
    assert capsys.readouterr().out.splitlines() == [
        "done     sft-seed0",
        "done     strong-seed0",
        "missing  sft-seed1",
        "done     strong-seed1",
        "3 of 4 runs are done",
    ]


def test_study_takes_runs_finished_by_another_process(
    resumed_study: tuple[Path, dict[Path, int], str],
    study_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(resumed_study[0] / "runs", tmp_path / "one" / "runs")
    nothing_yet = [RunStatus(run, None, Workload(run.recipe)) for run in study_runs(load_study(study_file))]
    monkeypatch.setattr(runner, "study_status", lambda *_: nothing_yet)  # as it was before the neighbor began
    run_study(load_study(study_file), tmp_path / "two")
    assert capsys.readouterr().err.count("done before") == 4
    assert not (tmp_path / "two" / "work" / "shared").exists()  # nothing was run
    for name in ("study.json", "study.md"):
        assert (tmp_path / "two" / name).read_text() == (resumed_study[0] / name).read_text()


def test_study_reuses_adapters_of_the_same_training(
    resumed_study: tuple[Path, dict[Path, int], str],
    study_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(resumed_study[0], tmp_path / "one", symlinks=True)
    scaled = tmp_path / "scaled.toml"
    settings = "align.lambda_start = 5.0\nalign.over_refusal = 0.25\n"
    scaled.write_text(study_file.read_text().replace("align.lambda_start = 5.0\n", settings).replace("[0, 1]", "[0]"))
    run_study(load_study(scaled), tmp_path / "two")
    output = capsys.readouterr().err
    assert "run 1 of 2: sft-seed0, done before" in output
    assert "presafe: refuses" in output  # it was scaled
    original, scaled_copy = (
        tmp_path / name / "work" / "strong-seed0" / "alignment" / "presafe" for name in ("one", "two")
    )
    weights = "adapter/adapter_model.safetensors"
    assert (original / weights).stat().st_mtime_ns == (
        scaled_copy / weights
    ).stat().st_mtime_ns  # a copy, not another training
    assert (scaled_copy / "operating_point.json").exists()
    assert not (original / "operating_point.json").exists()
    first, second = (
        json.loads((tmp_path / name / "runs" / "strong-seed0.json").read_text()) for name in ("one", "two")
    )
    assert second["trained_tokens"] == first["trained_tokens"]
    assert second["training_s"] == first["training_s"] > second["timings_s"]["align"]  # what it cost, not the copy
    assert second["trained_by"]["made_by"] == first["made_by"]
    assert first["trained_by"] is None
    assert second["operating_point"]["n"] == 4


def test_wrong_condition_fails_before_any_run(study_file: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(study_file.read_text().replace("align.lambda_align = 5.0", "align.lambda = 5.0"))
    process = start("study", str(wrong), "--out", str(tmp_path / "out"))
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2
    assert "condition 'strong'" in err
    assert "align.lambda: Extra inputs are not permitted" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out" / "runs").exists()


def only(rows: list[dict[str, Any]], **key: Any) -> dict[str, Any]:
    (row,) = (row for row in rows if all(row[name] == value for name, value in key.items()))
    return row
