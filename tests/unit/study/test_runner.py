"""What a study takes for done, and what it refuses; no model is called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from presafe.errors import RunError
from presafe.runs.io import write_text
from presafe.stages.workload import Workload
from presafe.study.records import RunResult
from presafe.study.runner import run_study, standing, summary_of
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


def leave_result(study: Study, out: Path, name: str) -> Path:
    """The JSON of a run, as if it were done."""
    run = next(run for run in study_runs(study) if run.name == name)
    result = RunResult(
        condition=run.condition.name,
        system=run.condition.system,
        seed=run.seed,
        recipe=run.recipe.model_dump(mode="json"),
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


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values), encoding="utf-8")


def test_a_run_with_a_result_is_done(study: Study, tmp_path: Path) -> None:
    assert all(result is None for _, result, _ in standing(study, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    leave_result(study, tmp_path / "out", "strong-seed0")
    runs = standing(study, tmp_path / "out")
    found = {run.name: result is not None for run, result, _ in runs}
    assert found == {"sft-seed0": False, "strong-seed0": True, "sft-seed1": False, "strong-seed1": False}
    summary = summary_of(study, runs, [result for _, result, _ in runs if result is not None])
    assert summary.done == ("strong-seed0",)
    assert summary.missing == ("sft-seed0", "sft-seed1", "strong-seed1")


def test_a_result_of_another_recipe_is_refused_and_the_setting_named(study: Study, tmp_path: Path) -> None:
    path = leave_result(study, tmp_path, "strong-seed0")
    other = json.loads(path.read_text())["recipe"]
    other["align"]["lambda_align"] = 3.0
    change(path, recipe=other)
    with pytest.raises(
        RunError, match=r"strong-seed0\.json was made with other settings \(align\.lambda_align: 3\.0 → 2"
    ):
        standing(study, tmp_path)


def test_a_setting_that_came_later_has_its_default_in_older_results(study: Study, tmp_path: Path) -> None:
    path = leave_result(study, tmp_path, "strong-seed0")
    older = json.loads(path.read_text())["recipe"]
    assert older["align"].pop("head_learning_rate") is None
    change(path, recipe=older)
    assert sum(result is not None for _, result, _ in standing(study, tmp_path)) == 1


def test_a_result_with_other_prompts_is_refused(study: Study, tmp_path: Path) -> None:
    change(leave_result(study, tmp_path, "sft-seed1"), prompts_sha256="other")
    with pytest.raises(RunError, match=r"sft-seed1\.json was made with other prompts"):
        standing(study, tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"condition": "sft"}'])
def test_a_result_that_cannot_be_read_is_refused(study: Study, tmp_path: Path, text: str) -> None:
    leave_result(study, tmp_path, "sft-seed0").write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=r"cannot read .*sft-seed0\.json: .*Delete it to do the run again\."):
        standing(study, tmp_path)


def test_what_a_study_beside_it_has_done_is_taken_from_there(study: Study, tmp_path: Path) -> None:
    out, beside = tmp_path / "out", tmp_path / "beside"
    for run in study_runs(study):
        leave_result(study, beside, run.name)
    assert all(result is not None for _, result, _ in standing(study, out))
    assert not out.exists()
    summary = run_study(study, out)  # calls no model: nothing is missing
    assert summary.missing == ()
    assert {path.name for path in (out / "runs").iterdir()} == {f"{run.name}.json" for run in study_runs(study)}
    shutil.rmtree(beside)
    assert all(result is not None for _, result, _ in standing(study, out))


def test_another_run_of_that_name_beside_it_is_none_of_its_own(study: Study, tmp_path: Path) -> None:
    for name, fault in (("a", {"prompts_sha256": "other"}), ("b", {"recipe": {}}), ("c", {"seed": "none"})):
        change(leave_result(study, tmp_path / name, "sft-seed0"), **fault)
    assert all(result is None for _, result, _ in standing(study, tmp_path / "out"))
    leave_result(study, tmp_path / "d", "sft-seed0")
    assert sum(result is not None for _, result, _ in standing(study, tmp_path / "out")) == 1
