"""Stored recipes of a study's runs: what is left out, and that it is read back the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from presafe.config.recipe import (
    AlignSettings,
    EvaluateSettings,
    Recipe,
    RespondSettings,
    SignalSettings,
    load_recipe,
    parse_recipe,
    recipe_settings,
    shipped_recipes,
)
from presafe.study.records import RunResult, settings_without_defaults


def recipe_with(**tables: dict[str, Any]) -> Recipe:
    """Return a shipped recipe with other settings, given by table."""
    settings = recipe_settings("smolthink-135m-published")
    for table, values in tables.items():
        settings[table] |= values
    return parse_recipe(settings, "test")


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_read_back_the_same(name: str) -> None:
    recipe = load_recipe(name)
    stored = settings_without_defaults(recipe)
    assert parse_recipe(stored, "stored") == recipe
    assert parse_recipe(recipe.model_dump(mode="json"), "older") == recipe  # older files hold all settings


def test_defaults_are_left_out() -> None:
    stored = settings_without_defaults(recipe_with(align={"lora_rank": 16, "max_steps": 7}, evaluate={"samples": 1}))
    assert stored["align"]["max_steps"] == 7
    assert "lora_rank" not in stored["align"]  # 16 is the default
    assert "samples" not in stored["evaluate"]
    assert stored["evaluate"]["suites"]["jailbreakbench"] == {"suite": "jailbreakbench"}
    assert stored["respond"]["alignment_queries"][0] == {"set": "harmful", "split": "align", "n": 120}


def test_data_set_on_the_hub_is_read_back_the_same() -> None:
    settings = recipe_settings("deepseek-r1-distill-qwen-7b")
    source = next(source for source in settings["respond"]["alignment_queries"] if "hub" in source)
    source["split"] = "held_out"  # the default of other sources; of a data set on the hub it must be written
    recipe = parse_recipe(settings, "test")
    assert parse_recipe(settings_without_defaults(recipe), "stored") == recipe


DEFAULTS: dict[type[Any], dict[str, object]] = {
    RespondSettings: {
        "teacher_max_tokens": 32,
        "max_tokens": 160,
        "batch_size": 64,
        "batch_tokens": 65_536,
        "seed": 0,
    },
    SignalSettings: {
        "encoder": "minilm",
        "reads": "query",
        "held_out": 0.25,
        "epochs": 4,
        "learning_rate": 1e-4,
        "batch_size": 16,
        "max_length": 192,
        "save_steps": 20,
        "seed": 0,
    },
    AlignSettings: {
        "lambda_align": 1.0,
        "lambda_start": 0.0,
        "decision_position": "prompt_end",
        "refusal_target": "direct",
        "thinking_off_share": 0.0,
        "standardize_head": True,  # always stored; `config/stored.py` reads a file without it as raw
        "head_learning_rate": 1e-2,
        "max_steps": 60,
        "batch_size": 8,
        "accumulation": 1,
        "learning_rate": 2e-4,
        "warmup_steps": 5,
        "lora_rank": 16,
        "lora_alpha": 32,
        "max_scale": 1.5,
        "max_length": 1024,
        "save_steps": 1,
    },
    EvaluateSettings: {
        "draw": "stratified",  # always stored; `config/stored.py` reads a file without it as "first"
        "max_tokens": 160,
        "samples": 1,
        "batch_size": 64,
        "batch_tokens": 65_536,
        "seed": 0,
    },
}
"""Defaults with which the committed runs were made."""


@pytest.mark.parametrize("table", DEFAULTS)
def test_defaults_are_those_of_the_committed_runs(table: type[Any]) -> None:
    """A stored recipe has no defaults. Before a default changes, write the old one into `research/studies/*/runs`."""
    scalars = {
        name: field.default
        for name, field in table.model_fields.items()
        if isinstance(field.default, int | float | str)
    }
    assert scalars == DEFAULTS[table]


def test_results_of_version_1_are_read_with_new_names() -> None:
    file = Path(__file__).parents[3] / "research" / "studies" / "control" / "runs" / "presafe-seed0.json"
    stored = json.loads(file.read_text(encoding="utf-8"))
    assert stored["schema_version"] == 1
    result = RunResult.model_validate(stored)
    old = [row["value"] for row in stored["scores"] if row["metric"] == "attack_success_rate"]
    assert old
    assert [row.value for row in result.scores if row.metric == "not_refused_rate"] == old
    assert not [row for row in result.scores if row.metric == "attack_success_rate"]
    # a judge of harm gives no rate of refusals, and keeps its name
    stored["scores"] = [row for row in stored["scores"] if row["metric"] != "refusal_rate"]
    assert [row.value for row in RunResult.model_validate(stored).scores if row.metric == "attack_success_rate"] == old
