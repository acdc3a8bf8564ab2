"""Which paths two run folders share, that one run's files are in the other's folder, and which trainings are copied."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from presafe.config.files import merge_settings
from presafe.config.recipe import Recipe, parse_recipe, recipe_settings
from presafe.runs.io import read_json, write_json, write_text
from presafe.stages.run_folder import RunFolder
from presafe.stages.workload import Workload
from presafe.study.sharing import link_shared, shared_paths, take_training, trained_by

WHOLE = recipe_settings("smolthink-135m")["respond"]["alignment_queries"]
FEWER = [{**WHOLE[0], "n": 9}, *WHOLE[1:]]


def changed(**settings: Any) -> Recipe:
    """Return the shipped recipe with other settings."""
    return parse_recipe(merge_settings(settings, recipe_settings("smolthink-135m")), "test")


def differing(left: Recipe, right: Recipe) -> set[str]:
    """Return the paths that runs of the two recipes do not share."""
    ours, theirs = (
        {shared.path: shared for shared in shared_paths(recipe, Workload(recipe))} for recipe in (left, right)
    )
    return {path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)}


SIGNALS = {"signals", "stages/signal"}
POSITIONS = "evaluation/positions/vanilla-on.jsonl"
VANILLA = {"evaluation/vanilla-on", "evaluation/vanilla-off", POSITIONS}
OWN_OFF = "responses/own_off"
RESPONSES = {"responses/teacher", "responses/traces", "responses/own", OWN_OFF}


def test_training_settings_do_not_change_earlier_paths() -> None:
    other = changed(name="other", align={"systems": ["random_labels"], "seeds": [7], "lambda_align": 3.0})
    assert differing(changed(), other) == set()


def test_setting_changes_only_the_paths_it_decides() -> None:
    base = changed()
    assert differing(base, changed(signal={"epochs": 2})) == SIGNALS
    assert differing(base, changed(signal={"held_out": 0.3})) == {*SIGNALS, "responses/traces"}
    assert differing(base, changed(signal={"reads": "query_and_answer"})) == {*SIGNALS, "responses/decided"}
    assert differing(base, changed(evaluate={"max_tokens": 50})) == VANILLA
    assert differing(base, changed(evaluate={"judge_thought": "gcg_strings"})) == VANILLA
    assert differing(base, changed(evaluate={"aligned_thinking": ["on", "off"]})) == set()
    assert differing(base, changed(align={"thinking_off_share": 0.4})) == set()
    assert differing(base, changed(align={"thinking_off_share": 0.0})) == {OWN_OFF}
    assert not {"judge_thought", "aligned_thinking", "reads"} & set(
        re.findall(r"\w+", str(shared_paths(base, Workload(base))))
    )  # not in the key at their defaults: older stores are still found
    assert differing(base, changed(align={"refusal_target": "direct"})) == {POSITIONS}
    assert differing(base, changed(respond={"max_tokens": 50})) == {*RESPONSES, *SIGNALS}
    other = "float32" if base.model.dtype == "bfloat16" else "bfloat16"  # which one "auto" is depends on the machine
    assert differing(base, changed(model={"dtype": other})) == {*RESPONSES, *SIGNALS, *VANILLA}
    aligned = [{"set": "harmful", "split": "align", "n": 9}, {"set": "benign", "split": "align", "n": 9}]
    assert differing(base, changed(respond={"alignment_queries": aligned})) == {
        *SIGNALS,
        "responses/own",
        OWN_OFF,
    }
    # harmful alignment queries are answered with CoT off only
    assert differing(base, changed(respond={"alignment_queries": FEWER})) == {*SIGNALS, OWN_OFF}


def test_runs_find_each_others_files(tmp_path: Path) -> None:
    recipes = {"a": changed(name="a"), "b": changed(name="b", align={"seeds": [1]}), "c": changed(signal={"epochs": 2})}
    for name, recipe in recipes.items():
        link_shared(recipe, Workload(recipe), tmp_path / name, tmp_path / "shared")
        link_shared(recipe, Workload(recipe), tmp_path / name, tmp_path / "shared")  # a run that resumes
    first, same, other_signal = (RunFolder.open_for(tmp_path / name, recipe) for name, recipe in recipes.items())
    assert not (tmp_path / "a" / POSITIONS).exists()
    assert not first.is_done("signal")
    write_text(tmp_path / "a" / "responses" / "teacher" / "log.eval", "answers")
    write_text(tmp_path / "a" / POSITIONS, "read")
    with first.working_on("signal"):
        write_text(tmp_path / "a" / "signals" / "signals.jsonl", "p'")
    assert same.is_done("signal")
    assert (tmp_path / "b" / "signals" / "signals.jsonl").read_text() == "p'"
    assert (tmp_path / "b" / POSITIONS).read_text() == "read"
    assert not other_signal.is_done("signal")
    assert not (tmp_path / "c" / "signals" / "signals.jsonl").exists()
    assert (tmp_path / "c" / "responses" / "teacher" / "log.eval").read_text() == "answers"


def test_study_folder_can_be_moved(tmp_path: Path) -> None:
    link_shared(changed(), Workload(changed()), tmp_path / "here" / "a", tmp_path / "here" / "shared")
    write_text(tmp_path / "here" / "a" / "signals" / "signals.jsonl", "p'")
    (tmp_path / "here").rename(tmp_path / "there")
    assert (tmp_path / "there" / "a" / "signals" / "signals.jsonl").read_text() == "p'"


def trained(folder: Path, recipe: Recipe, workload: Workload | None = None) -> Path:
    """Make a run folder in which one system is trained and scaled."""
    run = RunFolder.open_for(folder, recipe, workload)
    to = folder / "alignment" / recipe.align.systems[0]
    write_text(to / "adapter" / "adapter_model.safetensors", folder.name)
    write_json(to / "adapter" / "adapter_config.json", {"r": 16, "lora_alpha": 0.74 * recipe.align.lora_alpha})
    write_text(to / "checkpoints" / "checkpoint-72" / "optimizer.pt", "large")
    write_text(to / "history.jsonl", "steps")
    write_text(to / "operating_point.json", "scale")
    with run.working_on("align"):
        pass
    write_json(folder / "timings.json", {"respond": 1.0, "align": 300.0})
    return folder


SFT_SEED_3: dict[str, Any] = {"systems": ["sft"], "seeds": [3]}


@pytest.mark.parametrize("rate", [0.05, None])
def test_copied_training_is_as_it_was_before_scaling(tmp_path: Path, rate: float | None) -> None:
    other = trained(tmp_path / "a", changed(name="a", align=SFT_SEED_3))
    to = tmp_path / "b"
    align = {**SFT_SEED_3, "over_refusal": rate, "max_scale": 1.2}
    recipe = changed(name="b", evaluate={"max_tokens": 50}, align=align)
    take_training(recipe, Workload(recipe).sha256, to, [tmp_path / "empty", other])
    copy = to / "alignment" / "sft"
    # the operating point is the other run's, and so is the scale in its adapter
    assert {path.name for path in copy.iterdir()} == {"adapter", "history.jsonl", "trained_by.json"}
    assert (copy / "adapter" / "adapter_model.safetensors").read_text() == "a"
    assert read_json(copy / "adapter" / "adapter_config.json") == {"r": 16, "lora_alpha": recipe.align.lora_alpha}
    maker = trained_by(copy)
    assert maker is not None
    manifest = RunFolder.existing(other).manifest()
    assert (maker.run, maker.training_s, maker.made_by["commit"]) == ("a", 300.0, manifest["commit"])
    run = RunFolder.open_for(to, recipe)  # it starts like any other run
    assert not run.is_done("align")
    with run.working_on("align"):
        pass
    # a third run copies the copy, and the record still names the first run
    take_training(changed(name="c", align=SFT_SEED_3), Workload(changed()).sha256, tmp_path / "c", [to])
    assert trained_by(tmp_path / "c" / "alignment" / "sft") == maker


def test_existing_run_keeps_its_files(tmp_path: Path) -> None:
    other, recipe = trained(tmp_path / "a", changed(name="a", align=SFT_SEED_3)), changed(name="b", align=SFT_SEED_3)
    RunFolder.open_for(tmp_path / "b", changed(name="b", align={**SFT_SEED_3, "lora_rank": 4}))
    take_training(recipe, Workload(recipe).sha256, tmp_path / "b", [other])
    assert not (tmp_path / "b" / "alignment").exists()  # that run has another rank than the recipe
    write_text(tmp_path / "c" / "alignment" / "sft" / "history.jsonl", "half a copy, after a kill")
    take_training(recipe, Workload(recipe).sha256, tmp_path / "c", [other])
    assert (tmp_path / "c" / "alignment" / "sft" / "history.jsonl").read_text() == "steps"


def test_another_training_is_not_copied(tmp_path: Path) -> None:
    recipe = changed(name="mine", align=SFT_SEED_3)
    folders = [
        trained(tmp_path / "steps", changed(align={**SFT_SEED_3, "max_steps": 9})),
        trained(tmp_path / "seed", changed(align={**SFT_SEED_3, "seeds": [4]})),
        trained(tmp_path / "signal", changed(align=SFT_SEED_3, signal={"epochs": 2})),
        trained(
            tmp_path / "prompts", changed(align=SFT_SEED_3), Workload(changed(respond={"alignment_queries": FEWER}))
        ),
        trained(tmp_path / "cut", changed(align=SFT_SEED_3)),
        trained(tmp_path / "not scaled yet", changed(align=SFT_SEED_3)),
    ]
    (tmp_path / "cut" / "alignment" / "sft" / "history.jsonl").unlink()
    (tmp_path / "not scaled yet" / "stages" / "align").unlink()
    take_training(recipe, Workload(recipe).sha256, tmp_path / "mine", folders)
    assert not (tmp_path / "mine").exists()
    take_training(recipe, Workload(recipe).sha256, tmp_path / "mine", [*folders, trained(tmp_path / "same", recipe)])
    assert (tmp_path / "mine" / "alignment" / "sft" / "adapter" / "adapter_model.safetensors").read_text() == "same"


def test_training_deleted_while_it_is_copied_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = changed(name="mine", align=SFT_SEED_3)
    other = trained(tmp_path / "a", recipe)

    def fail_halfway(source: Path, to: Path, ignore: object) -> None:
        write_text(to / "history.jsonl", "steps")
        shutil.rmtree(source.parent)
        raise shutil.Error([(source, to, "gone")])

    monkeypatch.setattr("presafe.study.sharing.shutil.copytree", fail_halfway)
    take_training(recipe, Workload(recipe).sha256, tmp_path / "mine", [other])
    assert not (tmp_path / "mine" / "alignment" / "sft").exists()
