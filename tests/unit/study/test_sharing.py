"""Which parts of two run folders are one, and that a part made in one folder stands in the other."""

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
from presafe.study.sharing import link_shared, shared_parts, take_training, trained_by

WHOLE = recipe_settings("smolthink-135m")["respond"]["alignment_queries"]
FEWER = [{**WHOLE[0], "n": 9}, *WHOLE[1:]]


def changed(**settings: Any) -> Recipe:
    return parse_recipe(merge_settings(settings, recipe_settings("smolthink-135m")), "test")


def differing(left: Recipe, right: Recipe) -> set[str]:
    """Parts that the two do not share."""
    one, other = ({part.path: part for part in shared_parts(recipe, Workload(recipe))} for recipe in (left, right))
    return {path for path in one.keys() | other.keys() if one.get(path) != other.get(path)}


SIGNALS = {"signals", "stages/signal"}
POSITIONS = "evaluation/positions/vanilla-on.jsonl"
VANILLA = {"evaluation/vanilla-on", "evaluation/vanilla-off", POSITIONS}
OWN_OFF = "responses/own_off"
RESPONSES = {"responses/teacher", "responses/traces", "responses/own", OWN_OFF}


def test_what_is_trained_decides_nothing_that_comes_before_it() -> None:
    other = changed(name="other", align={"systems": ["random_labels"], "seeds": [7], "lambda_align": 3.0})
    assert differing(changed(), other) == set()


def test_a_setting_parts_what_it_decides_and_no_more() -> None:
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
        re.findall(r"\w+", str(shared_parts(base, Workload(base))))
    )  # a default decides nothing: what was made before it is found
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


def test_what_one_run_writes_the_other_finds(tmp_path: Path) -> None:
    recipes = {"a": changed(name="a"), "b": changed(name="b", align={"seeds": [1]}), "c": changed(signal={"epochs": 2})}
    for name, recipe in recipes.items():
        link_shared(recipe, Workload(recipe), tmp_path / name, tmp_path / "shared")
        link_shared(recipe, Workload(recipe), tmp_path / name, tmp_path / "shared")  # a run that goes on
    a, b, c = (RunFolder.open_for(tmp_path / name, recipe) for name, recipe in recipes.items())
    assert not (tmp_path / "a" / POSITIONS).exists()
    assert not a.is_done("signal")
    write_text(tmp_path / "a" / "responses" / "teacher" / "said.eval", "said")
    write_text(tmp_path / "a" / POSITIONS, "read")
    with a.working_on("signal"):
        write_text(tmp_path / "a" / "signals" / "signals.jsonl", "p'")
    assert b.is_done("signal")
    assert (tmp_path / "b" / "signals" / "signals.jsonl").read_text() == "p'"
    assert (tmp_path / "b" / POSITIONS).read_text() == "read"
    assert not c.is_done("signal")
    assert not (tmp_path / "c" / "signals" / "signals.jsonl").exists()
    assert (tmp_path / "c" / "responses" / "teacher" / "said.eval").read_text() == "said"


def test_the_study_may_be_moved(tmp_path: Path) -> None:
    link_shared(changed(), Workload(changed()), tmp_path / "here" / "a", tmp_path / "here" / "shared")
    write_text(tmp_path / "here" / "a" / "signals" / "signals.jsonl", "p'")
    (tmp_path / "here").rename(tmp_path / "there")
    assert (tmp_path / "there" / "a" / "signals" / "signals.jsonl").read_text() == "p'"


def trained(folder: Path, recipe: Recipe, workload: Workload | None = None) -> Path:
    """A run folder in which one system is trained and scaled."""
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


ONE: dict[str, Any] = {"systems": ["sft"], "seeds": [3]}


@pytest.mark.parametrize("rate", [0.05, None])
def test_a_training_is_taken_as_it_was_before_it_was_scaled(tmp_path: Path, rate: float | None) -> None:
    other = trained(tmp_path / "a", changed(name="a", align=ONE))
    to = tmp_path / "b"
    align = {**ONE, "over_refusal": rate, "max_scale": 1.2}
    recipe = changed(name="b", evaluate={"max_tokens": 50}, align=align)
    take_training(recipe, Workload(recipe).sha256, to, [tmp_path / "nothing there", other])
    taken = to / "alignment" / "sft"
    # the operating point is the other run's, and so is the scale in its adapter
    assert {path.name for path in taken.iterdir()} == {"adapter", "history.jsonl", "trained_by.json"}
    assert (taken / "adapter" / "adapter_model.safetensors").read_text() == "a"
    assert read_json(taken / "adapter" / "adapter_config.json") == {"r": 16, "lora_alpha": recipe.align.lora_alpha}
    maker = trained_by(taken)
    assert maker is not None
    manifest = RunFolder.existing(other).manifest()
    assert (maker.run, maker.training_s, maker.made_by["commit"]) == ("a", 300.0, manifest["commit"])
    run = RunFolder.open_for(to, recipe)  # it is begun like any other
    assert not run.is_done("align")
    with run.working_on("align"):
        pass
    # the next takes it from there, and it is still the first that made it
    take_training(changed(name="c", align=ONE), Workload(changed()).sha256, tmp_path / "c", [to])
    assert trained_by(tmp_path / "c" / "alignment" / "sft") == maker


def test_a_run_that_is_begun_keeps_what_it_has(tmp_path: Path) -> None:
    other, recipe = trained(tmp_path / "a", changed(name="a", align=ONE)), changed(name="b", align=ONE)
    RunFolder.open_for(tmp_path / "b", changed(name="b", align={**ONE, "lora_rank": 4}))
    take_training(recipe, Workload(recipe).sha256, tmp_path / "b", [other])
    assert not (tmp_path / "b" / "alignment").exists()  # it would be trained with another rank than its recipe says
    write_text(tmp_path / "c" / "alignment" / "sft" / "history.jsonl", "of a copy that a kill cut short")
    take_training(recipe, Workload(recipe).sha256, tmp_path / "c", [other])
    assert (tmp_path / "c" / "alignment" / "sft" / "history.jsonl").read_text() == "steps"


def test_another_training_is_not_taken(tmp_path: Path) -> None:
    recipe = changed(name="mine", align=ONE)
    folders = [
        trained(tmp_path / "steps", changed(align={**ONE, "max_steps": 9})),
        trained(tmp_path / "seed", changed(align={**ONE, "seeds": [4]})),
        trained(tmp_path / "signal", changed(align=ONE, signal={"epochs": 2})),
        trained(tmp_path / "prompts", changed(align=ONE), Workload(changed(respond={"alignment_queries": FEWER}))),
        trained(tmp_path / "cut", changed(align=ONE)),
        trained(tmp_path / "not scaled yet", changed(align=ONE)),
    ]
    (tmp_path / "cut" / "alignment" / "sft" / "history.jsonl").unlink()
    (tmp_path / "not scaled yet" / "stages" / "align").unlink()
    take_training(recipe, Workload(recipe).sha256, tmp_path / "mine", folders)
    assert not (tmp_path / "mine").exists()
    take_training(recipe, Workload(recipe).sha256, tmp_path / "mine", [*folders, trained(tmp_path / "same", recipe)])
    assert (tmp_path / "mine" / "alignment" / "sft" / "adapter" / "adapter_model.safetensors").read_text() == "same"


def test_a_training_that_is_deleted_while_it_is_copied_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = changed(name="mine", align=ONE)
    other = trained(tmp_path / "a", recipe)

    def cut_short(source: Path, to: Path, ignore: object) -> None:
        write_text(to / "history.jsonl", "steps")
        shutil.rmtree(source.parent)
        raise shutil.Error([(source, to, "gone")])

    monkeypatch.setattr("presafe.study.sharing.shutil.copytree", cut_short)
    take_training(recipe, Workload(recipe).sha256, tmp_path / "mine", [other])
    assert not (tmp_path / "mine" / "alignment" / "sft").exists()
