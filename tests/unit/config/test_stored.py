"""Recipes that older releases stored: in folders of runs, and in the committed results of studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from presafe.config.recipe import load_recipe, parse_recipe
from presafe.config.sources import FileSource, HubSource, SetSource
from presafe.config.stored import parse_stored_recipe
from presafe.errors import RecipeError, RunError
from presafe.runs.manifest import sha256_of
from presafe.stages.run_folder import RunFolder
from presafe.study.spec import load_study, study_runs

STORED = Path(__file__).parent / "stored"
"""Recipes as the releases before the kinds of sources stored them: commits b2639ed and 523aa06."""
ROOT = Path(__file__).parents[3]
RESULTS = sorted(path for path in ROOT.glob("**/studies/*/runs") if "src" not in path.parts)


def stored(name: str) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((STORED / f"{name}.json").read_text(encoding="utf-8"))
    return settings


def test_an_older_recipe_equals_todays() -> None:
    # Each source of that file has all 14 keys, most of them null, and `licence`.
    settings = stored("deepseek-r1-distill-qwen-7b")
    assert settings["respond"]["alignment_queries"][0].keys() >= {"set", "file", "hub", "suite", "licence"}
    recipe = parse_stored_recipe(settings, "recipe.json")
    today = load_recipe("deepseek-r1-distill-qwen-7b")
    # Before the head was standardized it was raw, and null stood for the adapter's learning rate.
    assert settings["align"]["head_learning_rate"] is None
    head_as_it_was = {"standardize_head": False, "head_learning_rate": settings["align"]["learning_rate"]}
    # That recipe had the head alone, with direct refusals, which had no measured effect (review M6).
    head_as_it_was |= {"systems": ("sft", "presafe", "random_labels"), "lambda_align": 1.0, "lambda_start": 0.0}
    head_as_it_was |= {"refusal_target": "direct"}
    # Arithmetic had a limit, so the first prompts were taken; today they are drawn over the categories.
    assert (recipe.evaluate.draw, today.evaluate.draw) == ("first", "stratified")
    older = {
        "align": today.align.model_copy(update=head_as_it_was),
        "evaluate": today.evaluate.model_copy(update={"draw": "first"}),
    }
    assert recipe == today.model_copy(update=older)
    assert all(isinstance(source, HubSource) and source.license for source in recipe.respond.alignment_queries)


def test_the_recipe_of_an_older_study_run_equals_todays() -> None:
    recipe = parse_stored_recipe(stored("control-presafe-seed0"), "presafe-seed0.json")
    (run,) = (run for run in study_runs(load_study("control")) if run.name == "presafe-seed0")
    assert recipe == run.recipe
    assert all(isinstance(source, SetSource) for source in recipe.respond.alignment_queries)


def test_an_older_run_folder_is_resumed(tmp_path: Path) -> None:
    settings = stored("control-presafe-seed0")
    suites = settings["evaluate"]["suites"]
    settings["evaluate"]["suites"] = {name: table for name, table in suites.items() if table["suite"] is None}
    today = RunFolder.open_for(tmp_path / "today", parse_stored_recipe(settings, "recipe.json"))
    # The folder as the older release left it: its settings, and their hash in the manifest.
    folder = tmp_path / "older"
    folder.mkdir()
    manifest = today.manifest() | {"settings": settings, "recipe_sha256": sha256_of(settings)}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "recipe.json").write_text(json.dumps(settings), encoding="utf-8")
    assert RunFolder.open_for(folder, today.recipe).recipe == today.recipe
    assert json.loads((folder / "recipe.json").read_text(encoding="utf-8")) == settings
    other = today.recipe.model_copy(update={"align": today.recipe.align.model_copy(update={"max_steps": 7})})
    with pytest.raises(RunError, match=r"align\.max_steps: \d+ → 7"):
        RunFolder.open_for(folder, other)


def test_where_no_suite_has_a_limit_nothing_was_drawn() -> None:
    settings = stored("control-presafe-seed0")
    assert parse_stored_recipe(settings, "recipe.json").evaluate.draw == "first"  # StrongREJECT had n = 100
    settings["evaluate"]["suites"] = {"all": {"suite": "strong_reject"}}
    assert parse_stored_recipe(settings, "recipe.json").evaluate.draw == "stratified"
    settings["evaluate"] |= {"suites": {"some": {"suite": "strong_reject", "n": 9}}, "draw": "stratified"}
    assert parse_stored_recipe(settings, "recipe.json").evaluate.draw == "stratified"  # a newer release's own word


def test_committed_results_are_found() -> None:
    assert len(RESULTS) >= 10


@pytest.mark.parametrize("runs", RESULTS, ids=lambda runs: runs.parent.name)
def test_every_committed_result_is_read(runs: Path) -> None:
    files = sorted(runs.glob("*.json"))
    assert files
    for file in files:
        settings = json.loads(file.read_text(encoding="utf-8"))["recipe"]
        recipe = parse_stored_recipe(settings, str(file))
        drawn = "stratified" if runs.parent.name == "fair_head_72" else "first"
        assert recipe.evaluate.draw == settings["evaluate"]["draw"] == drawn
        # What is read is what was stored: the numbers of prompts of all sources.
        tables = [*settings["respond"]["alignment_queries"], *settings["evaluate"]["suites"].values()]
        sources = [*recipe.respond.alignment_queries, *recipe.evaluate.suites.values()]
        assert [(table.get("skip", 0), table.get("n")) for table in tables] == [
            (source.skip, source.n) for source in sources
        ]


def test_todays_recipe_is_read_as_it_is() -> None:
    recipe = load_recipe("smolthink-135m")
    settings = recipe.model_dump(mode="json")
    assert parse_stored_recipe(settings, "recipe.json") == parse_recipe(settings, "recipe.json") == recipe


def test_a_stored_key_that_had_an_effect_is_not_dropped() -> None:
    settings = stored("control-presafe-seed0")
    settings["evaluate"]["suites"] = {"mine": {"file": "mine.csv", "expect": "refuse", "set": None, "split": "build"}}
    with pytest.raises(RecipeError, match="`split` belongs to a `set` or a `hub`"):
        parse_stored_recipe(settings, "recipe.json")
    settings["evaluate"]["suites"]["mine"]["split"] = "held_out"
    recipe = parse_stored_recipe(settings, "recipe.json")
    assert recipe.evaluate.suites == {"mine": FileSource(file=Path("mine.csv"), expect="refuse")}


@pytest.mark.parametrize("table", [3, None, [], {}, {"set": None}, {"set": "benign", "file": "mine.csv"}])
def test_a_damaged_source_is_named(table: object) -> None:
    settings = stored("control-presafe-seed0")
    settings["evaluate"]["suites"] = {"mine": table}
    with pytest.raises(RecipeError, match=r"evaluate\.suites\.mine: .*one of `set`, `file`, `hub` and `suite`"):
        parse_stored_recipe(settings, "recipe.json")
