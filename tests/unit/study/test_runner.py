"""Status of a study's runs: which are done, and which results are refused; no model is called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from presafe.errors import RunError
from presafe.runs.io import write_text
from presafe.stages.workload import Workload
from presafe.study.records import RunResult, settings_without_defaults
from presafe.study.runner import run_study, study_status, summary_of
from presafe.study.spec import Study, load_study, study_runs

STUDY = """
name = "Mine"
recipe = "smolthink-135m"
baseline = "sft"
seeds = [0, 1]
condition = [{ name = "sft", system = "sft" }, { name = "strong", set = { align = { lambda_align = 2.0 } } }]
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    path = tmp_path / "mine.toml"
    path.write_text(STUDY, encoding="utf-8")
    return load_study(path)


def write_result(study: Study, out: Path, name: str) -> Path:
    """Write the JSON of a run, as if it were done."""
    run = next(run for run in study_runs(study) if run.name == name)
    result = RunResult(
        condition=run.condition.name,
        system=run.condition.system,
        seed=run.seed,
        recipe=settings_without_defaults(run.recipe),
        recipe_sha256="r",
        prompts_sha256=Workload(run.recipe).sha256,
        made_by={},
        timings_s={"align": 60.0},
        training_s=60.0,
        trained_tokens=100,
        scores=(),
        answered=(),
    )
    path = out / "runs" / f"{name}.json"
    write_text(path, result.model_dump_json())
    return path


def change_fields(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values), encoding="utf-8")


def done_runs(study: Study, out: Path) -> list[str]:
    """Return the names of the runs that are done."""
    return [status.run.name for status in study_status(study, out) if status.result is not None]


def test_run_with_a_result_is_done(study: Study, tmp_path: Path) -> None:
    assert done_runs(study, tmp_path / "out") == []
    assert not (tmp_path / "out").exists()
    write_result(study, tmp_path / "out", "strong-seed0")
    statuses = study_status(study, tmp_path / "out")
    assert [(status.run.name, status.result is not None) for status in statuses] == [
        ("sft-seed0", False),
        ("strong-seed0", True),
        ("sft-seed1", False),
        ("strong-seed1", False),
    ]
    summary = summary_of(
        study, [status.run for status in statuses], [status.result for status in statuses if status.result is not None]
    )
    assert summary.done == ("strong-seed0",)
    assert summary.missing == ("sft-seed0", "sft-seed1", "strong-seed1")


def test_result_of_another_recipe_is_refused(study: Study, tmp_path: Path) -> None:
    path = write_result(study, tmp_path, "strong-seed0")
    other = json.loads(path.read_text())["recipe"]
    other["align"]["lambda_align"] = 3.0
    change_fields(path, recipe=other)
    with pytest.raises(
        RunError, match=r"strong-seed0\.json was made with other settings \(align\.lambda_align: 3\.0 → 2"
    ):
        study_status(study, tmp_path)


def test_older_result_with_all_settings_is_done(study: Study, tmp_path: Path) -> None:
    path = write_result(study, tmp_path, "strong-seed0")
    (run,) = (run for run in study_runs(study) if run.name == "strong-seed0")
    older = run.recipe.model_dump(mode="json")
    assert older["align"].pop("warmup_steps") == 5  # a setting that came later
    change_fields(path, recipe=older)
    assert done_runs(study, tmp_path) == ["strong-seed0"]


def test_result_with_other_prompts_is_refused(study: Study, tmp_path: Path) -> None:
    change_fields(write_result(study, tmp_path, "sft-seed1"), prompts_sha256="other")
    with pytest.raises(RunError, match=r"sft-seed1\.json was made with other prompts"):
        study_status(study, tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"condition": "sft"}'])
def test_unreadable_result_is_refused(study: Study, tmp_path: Path, text: str) -> None:
    write_result(study, tmp_path, "sft-seed0").write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=r"cannot read .*sft-seed0\.json: .*Delete it to do the run again\."):
        study_status(study, tmp_path)


def test_runs_of_a_neighboring_study_are_copied(study: Study, tmp_path: Path) -> None:
    out, neighbor = tmp_path / "out", tmp_path / "neighbor"
    names = [run.name for run in study_runs(study)]
    for name in names:
        write_result(study, neighbor, name)
    assert done_runs(study, out) == names
    assert not out.exists()
    summary = run_study(study, out)  # calls no model: nothing is missing
    assert summary.missing == ()
    assert {path.name for path in (out / "runs").iterdir()} == {f"{name}.json" for name in names}
    shutil.rmtree(neighbor)
    assert done_runs(study, out) == names


def test_neighboring_run_of_the_same_name_must_match(study: Study, tmp_path: Path) -> None:
    for name, fault in (("a", {"prompts_sha256": "other"}), ("b", {"recipe": {}}), ("c", {"seed": "none"})):
        change_fields(write_result(study, tmp_path / name, "sft-seed0"), **fault)
    assert done_runs(study, tmp_path / "out") == []
    write_result(study, tmp_path / "d", "sft-seed0")
    assert done_runs(study, tmp_path / "out") == ["sft-seed0"]
