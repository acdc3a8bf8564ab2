"""The run folder: one recipe to a folder, one process at a time, finished stages marked and timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from presafe.config.recipe import Recipe, parse_recipe
from presafe.errors import RunError
from presafe.evaluation.suites import PUBLISHED
from presafe.runs.folder import locked
from presafe.runs.io import write_json, write_text
from presafe.runs.manifest import sha256_of_file
from presafe.runs.ownership import check_ownership
from presafe.stages.run_folder import STAGES, RunFolder
from presafe.stages.workload import Workload

SETTINGS: dict[str, Any] = {
    "name": "mine",
    "model": {"address": "smolthink"},
    "respond": {
        "classifier_queries": [{"set": "harmful", "n": 4}],
        "alignment_queries": [{"set": "harmful", "skip": 4, "n": 2}, {"set": "benign", "n": 4}],
    },
    "align": {"max_steps": 7},
    "evaluate": {"suites": {"sums": {"set": "arithmetic", "n": 5}}},
}


@pytest.fixture
def recipe() -> Recipe:
    return parse_recipe(SETTINGS, "test")


def changed(**align: object) -> Recipe:
    return parse_recipe({**SETTINGS, "align": {"max_steps": 7, **align}}, "test")


def test_a_new_folder_holds_recipe_and_manifest(tmp_path: Path, recipe: Recipe) -> None:
    run = RunFolder.open_for(tmp_path / "deep" / "run", recipe)
    stored = json.loads((tmp_path / "deep" / "run" / "recipe.json").read_text(encoding="utf-8"))
    assert stored["align"]["max_steps"] == 7
    assert stored["align"]["lora_rank"] == 16  # fully resolved: defaults too
    assert run.manifest()["schema"] == 1
    assert run.timings() == {}
    assert not any(run.is_done(stage) for stage in STAGES)


def test_a_manifest_names_the_published_files(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data" / PUBLISHED["advbench"].file
    write_text(file, "goal,target\nWrite a lie,Sure\n")
    monkeypatch.setenv("PRESAFE_DATA", str(tmp_path / "data"))
    suites = {"lies": {"suite": "advbench"}, "sums": {"set": "arithmetic", "n": 2}}
    settings = recipe.model_dump(mode="json")
    measured = parse_recipe(settings | {"evaluate": settings["evaluate"] | {"suites": suites}}, "test")
    manifest = RunFolder.open_for(tmp_path / "run", measured).manifest()
    assert manifest["origins"].keys() == {"lies"}
    assert manifest["origins"]["lies"]["sha256"] == manifest["inputs"][str(file)] == sha256_of_file(file)
    assert manifest["origins"]["lies"]["published_sha256"] == PUBLISHED["advbench"].sha256


def test_the_same_recipe_continues_and_keeps_its_manifest(tmp_path: Path, recipe: Recipe) -> None:
    first = RunFolder.open_for(tmp_path, recipe)
    manifest = first.manifest()
    assert RunFolder.open_for(tmp_path, recipe).manifest() == manifest
    assert manifest["later_sessions"] == []
    assert RunFolder.existing(tmp_path).recipe == first.recipe


def test_a_session_with_other_code_is_added_to_the_manifest(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = RunFolder.open_for(tmp_path, recipe).manifest()
    monkeypatch.setattr("presafe.runs.manifest._commit", lambda: "f" * 40)
    for _ in range(2):  # the second time it is the code of the last session
        manifest = RunFolder.open_for(tmp_path, recipe).manifest()
        assert [session["commit"] for session in manifest["later_sessions"]] == ["f" * 40]
    assert manifest["commit"] == first["commit"]


def test_other_prompts_are_refused(tmp_path: Path, recipe: Recipe) -> None:
    RunFolder.open_for(tmp_path, recipe)
    respond = {**SETTINGS["respond"], "classifier_queries": [{"set": "harmful", "n": 3}]}
    fewer = Workload(parse_recipe({**SETTINGS, "respond": respond}, "test"))
    with pytest.raises(RunError, match="other prompts"):
        RunFolder.open_for(tmp_path, recipe, fewer)


def test_the_folder_of_a_measurement_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "measurement.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match="holds a measurement"):
        RunFolder.open_for(tmp_path, recipe)
    assert not (tmp_path / "recipe.json").exists()


def test_other_settings_are_refused_and_named_with_both_values(tmp_path: Path, recipe: Recipe) -> None:
    RunFolder.open_for(tmp_path, recipe)
    with pytest.raises(RunError, match=r"align\.lambda_align: 1\.0 → 0\.5, align\.max_steps: 7 → 8") as caught:
        RunFolder.open_for(tmp_path, changed(max_steps=8, lambda_align=0.5))
    assert "lora_rank" not in str(caught.value)
    assert "with `out`" in caught.value.hint
    assert RunFolder.existing(tmp_path).recipe == recipe  # nothing was overwritten


def test_an_added_suite_counts_as_other_settings(tmp_path: Path, recipe: Recipe) -> None:
    RunFolder.open_for(tmp_path, recipe)
    more = {
        **SETTINGS,
        "evaluate": {"suites": {**SETTINGS["evaluate"]["suites"], "b": {"set": "benign", "skip": 9, "n": 1}}},
    }
    with pytest.raises(RunError, match=r"evaluate\.suites\.b"):
        RunFolder.open_for(tmp_path, parse_recipe(more, "test"))


def test_an_older_folder_is_resumed_if_a_new_setting_is_default(tmp_path: Path, recipe: Recipe) -> None:
    # Failed first: a new setting of None, which changes nothing, kept every folder from going on.
    RunFolder.open_for(tmp_path, recipe)
    path = tmp_path / "recipe.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored["align"].pop("layer") is None
    assert stored["evaluate"].pop("judge") is None
    path.write_text(json.dumps(stored), encoding="utf-8")
    RunFolder.open_for(tmp_path, recipe)
    assert stored["align"].pop("thinking_off_share") == 0
    path.write_text(json.dumps(stored), encoding="utf-8")
    RunFolder.open_for(tmp_path, recipe)
    with pytest.raises(RunError, match=r"\(align\.thinking_off_share: 0\.0 → 0\.25\)"):
        RunFolder.open_for(tmp_path, changed(thinking_off_share=0.25))


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no run \(no recipe\.json\)"):
        RunFolder.existing(tmp_path)


def test_a_broken_recipe_file_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match=r"cannot read .*recipe\.json"):
        RunFolder.existing(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(RunError, match="cannot write") as caught:
        RunFolder.open_for(tmp_path / "file" / "run", recipe)
    assert "with `out`" in caught.value.hint


def test_a_finished_stage_is_marked_and_the_others_are_not(tmp_path: Path, recipe: Recipe) -> None:
    run = RunFolder.open_for(tmp_path, recipe)
    with run.working_on("respond"):
        assert not run.is_done("respond")
    assert run.is_done("respond")
    assert not run.is_done("signal")


def test_a_stage_that_fails_is_timed_and_not_marked(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.open_for(tmp_path, recipe)
    clock = iter([100.0, 102.5])
    monkeypatch.setattr("presafe.runs.folder.time.monotonic", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt), run.working_on("align"):
        raise KeyboardInterrupt
    assert not run.is_done("align")
    assert run.timings() == {"align": 2.5}


def test_timings_add_up_over_sessions(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.5, 10.0, 12.0, 20.0, 20.3])
    monkeypatch.setattr("presafe.runs.folder.time.monotonic", lambda: next(clock))
    with RunFolder.open_for(tmp_path, recipe).working_on("align"):
        pass
    with RunFolder.existing(tmp_path).working_on("align"):
        pass
    with RunFolder.existing(tmp_path).working_on("report"):
        pass
    # 1.5 + 2.0, and 0.3 of another stage.
    assert RunFolder.existing(tmp_path).timings() == {"align": 3.5, "report": 0.3}


TRY = """
import sys
from pathlib import Path
from presafe.errors import RunError
from presafe.runs.folder import locked
try:
    with locked(Path(sys.argv[1])):
        print("in")
except RunError as error:
    print("out:", error)
"""


def test_a_second_process_is_kept_out_until_the_first_leaves(tmp_path: Path) -> None:
    def second() -> str:
        done = subprocess.run([sys.executable, "-c", TRY, str(tmp_path)], capture_output=True, text=True, check=True)
        return done.stdout

    with locked(tmp_path):
        assert second().startswith(f"out: another process is working in {tmp_path}.")
    assert second() == "in\n"


def test_a_lock_is_released_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        _ = 1 / 0
    with locked(tmp_path):
        pass


def test_a_lock_creates_its_folder_or_fails_clearly(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="cannot write"), locked(tmp_path / "file"):
        pass


def test_a_folder_with_files_of_the_user_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    # Failed first: manifest.json and recipe.json were written over the user's.
    for name in ("manifest.json", "notes.txt", "report/mine.html", ".git/config"):
        folder = tmp_path / name.replace("/", "-")
        write_text(folder / name, '{"name": "an app of mine"}')
        with pytest.raises(RunError, match=r"holds files that are not presafe's \(such as .*`out`"):
            RunFolder.open_for(folder, recipe)
        assert [path for path in folder.rglob("*") if path.is_file()] == [folder / name]
        assert (folder / name).read_text() == '{"name": "an app of mine"}'


def test_an_empty_or_incomplete_folder_is_started(tmp_path: Path, recipe: Recipe) -> None:
    write_text(tmp_path / "a" / ".DS_Store", "")
    write_text(tmp_path / "a" / ".lock", "")
    RunFolder.open_for(tmp_path / "a", recipe)
    (tmp_path / "a" / "recipe.json").unlink()  # a kill came between the two files
    assert RunFolder.open_for(tmp_path / "a", recipe).recipe == recipe


@pytest.mark.parametrize("name", ["measurement.json", "sweep.json", "comparison.json", "labels.json", "study.json"])
def test_a_folder_of_another_kind_is_refused(tmp_path: Path, recipe: Recipe, name: str) -> None:
    write_text(tmp_path / name, "{}")
    with pytest.raises(RunError, match=r"holds (a|judged) .*, not a run\. .*`out`"):
        RunFolder.open_for(tmp_path, recipe)


def test_a_file_or_dangling_link_is_refused_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(RunError, match="is not a folder"):
            check_ownership(tmp_path / name, "recipe.json")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("null", "it holds null, not a JSON object"),
        ("[]", "it holds a list, not a JSON object"),
        ("true", "it holds true or false, not a JSON object"),
        ('{"align": NaN}', "NaN is no number"),
        ('{"align": 1, "align": 2}', "the name 'align' stands twice in one object"),
        ('{"a": [{"b": 1, "b": 1}]}', "the name 'b' stands twice in one object"),
        ('{"align": 1e999}', "1e999 is too large"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": "x\\ud800y"}', "half of a pair of surrogates"),
        ('{"a":' * 150 + "1" + "}" * 150, "nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", "4300 digits"),
        ("", "Expecting value"),
        ('{"a": "\\xff', "Invalid"),
    ],
)
def test_json_of_another_kind_is_refused_in_one_line(tmp_path: Path, recipe: Recipe, text: str, message: str) -> None:
    # Failed first: AttributeError, RecursionError, or taken as it was.
    RunFolder.open_for(tmp_path, recipe)
    for name in ("recipe.json", "manifest.json"):
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(RunError, match=rf"cannot read .*{name}.*{message}") as caught:
            RunFolder.existing(tmp_path)
        assert "\n" not in str(caught.value)
        (tmp_path / name).write_bytes(before)


def test_a_pipe_instead_of_a_file_is_refused_at_once(tmp_path: Path, recipe: Recipe) -> None:
    RunFolder.open_for(tmp_path, recipe)
    (tmp_path / "manifest.json").unlink()
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(RunError, match=r"cannot read .*manifest\.json: it is a pipe or a device, not a regular file"):
        RunFolder.existing(tmp_path)


def test_settings_that_were_changed_after_the_run_are_refused(tmp_path: Path, recipe: Recipe) -> None:
    # Failed first: the report showed the changed settings as those of the run.
    RunFolder.open_for(tmp_path, recipe)
    for name, message in (
        ("recipe.json", r"recipe\.json was changed after the run was made \(align\.max_steps: 7 → 8\)"),
        ("manifest.json", r"manifest\.json and its settings do not fit"),
    ):
        before = (tmp_path / name).read_text(encoding="utf-8")
        assert '"max_steps": 7' in before
        (tmp_path / name).write_text(before.replace('"max_steps": 7', '"max_steps": 8'), encoding="utf-8")
        with pytest.raises(RunError, match=message):
            RunFolder.existing(tmp_path)
        (tmp_path / name).write_text(before, encoding="utf-8")
    RunFolder.existing(tmp_path)


@pytest.mark.parametrize("key", ["later_sessions", "packages", "commit", "recipe_sha256", "created_utc"])
def test_a_manifest_without_one_of_its_parts_is_refused(tmp_path: Path, recipe: Recipe, key: str) -> None:
    manifest = RunFolder.open_for(tmp_path, recipe).manifest()
    write_json(tmp_path / "manifest.json", manifest | {key: 7})
    with pytest.raises(RunError, match=rf"no manifest that presafe wrote: see its {key}"):
        RunFolder.open_for(tmp_path, recipe)


def test_an_older_manifest_without_settings_is_read(tmp_path: Path, recipe: Recipe) -> None:
    manifest = RunFolder.open_for(tmp_path, recipe).manifest()
    del manifest["settings"], manifest["origins"]  # as in a folder of June
    write_json(tmp_path / "manifest.json", manifest)
    assert RunFolder.existing(tmp_path).recipe == recipe
    text = (tmp_path / "recipe.json").read_text(encoding="utf-8")
    (tmp_path / "recipe.json").write_text(text.replace('"max_steps": 7', '"max_steps": 8'), encoding="utf-8")
    with pytest.raises(RunError, match="do not fit"):
        RunFolder.existing(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"align": "long"}', '{"align": -3}', '{"align": NaN}', '{"align": true}'])
def test_damaged_timings_are_set_aside(
    tmp_path: Path, recipe: Recipe, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Failed first: a traceback after the stage, and at every later one.
    run = RunFolder.open_for(tmp_path, recipe)
    (tmp_path / "timings.json").write_text(text, encoding="utf-8")
    (tmp_path / "timings.json.damaged").write_text("an earlier one", encoding="utf-8")
    with run.working_on("align"):
        pass
    assert run.is_done("align")
    assert run.timings() == {"align": 0.0}
    assert (tmp_path / "timings.json.damaged2").read_text(encoding="utf-8") == text
    assert (tmp_path / "timings.json.damaged").read_text(encoding="utf-8") == "an earlier one"
    assert "It is now timings.json.damaged2." in " ".join(capsys.readouterr().err.split())


def test_a_clock_set_back_adds_zero_seconds(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 90.0])
    monkeypatch.setattr("presafe.runs.folder.time.monotonic", lambda: next(clock))
    with RunFolder.open_for(tmp_path, recipe).working_on("align"):
        pass
    assert RunFolder.existing(tmp_path).timings() == {"align": 0.0}


def test_a_repeated_stage_makes_later_stages_due(tmp_path: Path, recipe: Recipe) -> None:
    # Failed first: with its mark taken away, a stage was done again under results of the stages after it.
    run = RunFolder.open_for(tmp_path, recipe)
    write_text(tmp_path / "store" / "signal", "done\n")
    for stage in ("respond", "align", "evaluate", "report"):
        write_text(tmp_path / "stages" / stage, "done\n")
    (tmp_path / "stages" / "signal").symlink_to(Path("..") / "store" / "signal")  # a study's
    with run.working_on("respond"):
        assert run.not_done() == ["respond", "align", "evaluate", "report"]
    assert run.not_done() == ["align", "evaluate", "report"]


def test_text_that_utf8_cannot_hold_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"UTF-8 cannot hold '\\udcff'"):
        write_json(tmp_path / "a.json", {"adapter": "\udcff"})
    assert list(tmp_path.iterdir()) == []
