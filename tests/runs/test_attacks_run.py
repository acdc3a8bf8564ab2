"""A run with attacks and defenses on models of a few thousand weights, to its report; and its comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_run import RECIPE

from presafe.config.attacking import Hardening
from presafe.config.recipe import load_recipe, parse_recipe, recipe_settings
from presafe.errors import ModelError
from presafe.models.loading import load_renderer
from presafe.planning.devices import assumptions
from presafe.records import PositionScore, Score
from presafe.runs.io import read_jsonl
from presafe.stages.align import system_rows
from presafe.stages.evaluate import _searched_decision, responses_by_suite, scores_of_run
from presafe.stages.respond import responses_of
from presafe.stages.run_folder import RunFolder
from presafe.stages.signal import signals_of
from presafe.stages.systems import System, evaluated_systems, label_of
from presafe.workflows.compare import compare_folders
from presafe.workflows.measure import _decision_of
from presafe.workflows.plan import sampling_tasks
from presafe.workflows.run import run_stages

ATTACKED = {"harmful", "harmful@prefilled_thought"}
DEFENSES = ("perplexity:fpr=0",)


@pytest.fixture(scope="module")
def file(recipe: Path) -> Path:
    """Write a recipe with an attack and a defense. The student reads longer prompts than it was made for."""
    config = recipe.parent / "student" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 2048}))
    rows = "".join(json.dumps({"prompt": f"the red stone {number}"}) + "\n" for number in range(2))
    (recipe.parent / "stand_ins.jsonl").write_text(rows)
    attacked = 'attacks = ["prefilled_thought"]\ndefenses = ["perplexity:fpr=0"]'
    text = (
        RECIPE.format(folder=recipe.parent)
        .replace("max_steps = 6", "max_steps = 2")
        .replace(
            "[evaluate.suites]",
            f"[evaluate]\nmax_tokens = 8\n{attacked}\n[evaluate.suites]\n"
            f'harmful = {{ file = "{recipe.parent}/stand_ins.jsonl", expect = "refuse" }}',
        )
    )
    file = recipe.parent / "attacked.toml"
    file.write_text(text)
    return file


@pytest.fixture(scope="module")
def whole(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_stages(load_recipe(file), tmp_path_factory.mktemp("attacked") / "run")


def test_every_system_is_also_measured_behind_each_defense(whole: Any) -> None:
    plain = [("vanilla", "on"), ("vanilla", "off"), ("presafe", "on")]
    defended = [(f"{name}+{defense}", "on") for defense in DEFENSES for name in ("vanilla", "presafe")]
    systems = evaluated_systems(whole.recipe)
    assert [(system.name, system.thinking) for system in systems] == [*plain, *defended]
    scores = read_jsonl(whole.path / "evaluation" / "scores.jsonl", Score)
    by_system = {(system.name, system.thinking): set[str]() for system in systems}
    for score in scores:
        by_system[score.system, score.thinking].add(score.suite)
    # With CoT off no thought is begun.
    assert by_system.pop(("vanilla", "off")) == ATTACKED - {"harmful@prefilled_thought"} | {"own"}
    assert set(map(frozenset, by_system.values())) == {frozenset(ATTACKED | {"own"})}


def test_a_defended_system_has_the_folder_and_adapter_of_its_own(whole: Any) -> None:
    system = System("presafe+perplexity:fpr=0", 0, "on")
    assert label_of(whole, system) == "presafe+perplexity:fpr=0-on"
    # The model that stands behind the defense is the aligned one: what it says differs from the vanilla one's.
    aligned, vanilla = (
        [response.answer + response.thought for response in responses_by_suite(whole, named)["harmful"]]
        for named in (system, System("vanilla+perplexity:fpr=0", None, "on"))
    )
    assert aligned != vanilla
    seed = System("presafe+perplexity:fpr=0", 3, "on")
    assert label_of(whole, seed) == "presafe-seed3+perplexity:fpr=0-on"


def test_positions_are_read_of_plain_prompts(whole: Any) -> None:
    folder = whole.path / "evaluation" / "positions"
    positions = read_jsonl(folder / "presafe-on.jsonl", PositionScore)
    assert {position.suite for position in positions} == {"harmful", "own"}
    assert read_jsonl(folder / "presafe+perplexity:fpr=0-on.jsonl", PositionScore) == []


def test_the_filter_refuses_no_more_than_its_threshold_says(whole: Any) -> None:
    # fpr = 0: nothing above the most surprising harmless prompt. What is refused costs no query.
    responses = responses_by_suite(whole, System("vanilla+perplexity:fpr=0", None, "on"))["own"]
    assert len(responses) == 4
    for response in responses:
        assert response.spent is not None
        assert response.spent.queries == (0 if response.answer.startswith("I'm sorry, but I can't help") else 1)


def test_the_report_knows_attacked_suites_and_is_read_again(whole: Any) -> None:
    page = (whole.path / "report" / "report.html").read_text(encoding="utf-8")
    assert "Attacks and defenses" in page
    assert "PreSafe + L_start (ours) + perplexity:fpr=0" in page
    assert "harmful @ prefilled_thought" in page
    assert scores_of_run(RunFolder.existing(whole.path)) == read_jsonl(
        whole.path / "evaluation" / "scores.jsonl", Score
    )


def test_a_run_with_defenses_is_compared(whole: Any, tmp_path: Path) -> None:
    compared = compare_folders([whole.path], tmp_path, against="presafe")
    assert "presafe+perplexity:fpr=0" in {score.system for score in compared.scores}


def test_a_plan_counts_attacked_suites(file: Path) -> None:
    recipe = load_recipe(file)
    assumed = assumptions()
    counts = {task.what.split(",")[0]: task.num_prompts for task in sampling_tasks(recipe, assumed)}
    # Five systems; harmful prompts plainly and under an attack. How many a file holds is assumed.
    assert counts["evaluate harmful"] == 5 * 2 * assumed.suite_prompts
    assert counts["evaluate own"] == 5 * assumed.suite_prompts


def test_a_served_model_has_no_perplexity_filter(file: Path, tmp_path: Path) -> None:
    settings = recipe_settings(file)
    settings["model"] = {"address": "http://127.0.0.1:9#m"}
    settings["align"]["systems"] = ["zero_think"]
    with pytest.raises(ModelError, match="the defense perplexity:fpr=0 needs local weights"):
        run_stages(parse_recipe(settings, "served"), tmp_path / "run")


def test_a_search_reads_the_decision_as_the_run_does(whole: Any) -> None:
    evaluate = whole.recipe.evaluate.model_copy(update={"attacks": ("adaptive",)})
    run = RunFolder(whole.path, whole.recipe.model_copy(update={"evaluate": evaluate}))
    aligned = _searched_decision(run, System("presafe+perplexity:fpr=0", 0, "on"))
    vanilla = _searched_decision(run, System("vanilla", None, "on"))
    assert aligned is not None
    assert aligned.head is not None
    assert vanilla is not None
    assert vanilla.head is None
    # The adapter alone, outside of its run, is read in the same way.
    alone = _decision_of(whole.recipe.model, whole.path / "alignment" / "presafe" / "adapter")
    assert alone.start == aligned.start
    assert alone.head is not None
    assert alone.head.weight.equal(aligned.head.weight)
    assert _decision_of(whole.recipe.model, None).head is None
    # No attack of the run itself reads the decision.
    assert _searched_decision(whole, System("presafe", 0, "on")) is None


def test_a_hardened_run_trains_on_attacked_queries(whole: Any) -> None:
    hardening = Hardening(attacks=("no_check",), share=1.0)
    align = whole.recipe.align.model_copy(update={"hardening": hardening})
    run = RunFolder(whole.path, whole.recipe.model_copy(update={"align": align}))
    system, renderer = System("presafe", 0, "on"), load_renderer(whole.recipe.model.address, whole.recipe.model.family)
    own, signals = responses_of(run, "own"), signals_of(run)
    plain = system_rows(whole, system, renderer, own, signals)
    rows = system_rows(run, system, renderer, own, signals)
    attacked = rows[len(plain) :]
    assert rows[: len(plain)] == plain
    # Each plain row again, under the attack, with its decision.
    by_id = {row.prompt_id: row for row in plain}
    assert {row.prompt_id for row in attacked} == {f"{name}@no_check" for name in by_id}
    for row in attacked:
        assert row.signal == by_id[row.prompt_id.removesuffix("@no_check")].signal
