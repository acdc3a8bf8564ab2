"""The project's studies: what each of them changes, and that the committed runs are the runs of their study."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from paths import DOCS, STUDIES

from presafe.config.recipe import Recipe, load_recipe, parse_recipe
from presafe.evaluation.attacked import measured_suites
from presafe.methods.registry import methods
from presafe.study.page import study_markdown
from presafe.study.records import RunResult, settings_without_defaults
from presafe.study.runner import study_status, summary_of
from presafe.study.spec import StudyRun, load_study, shipped_studies, study_runs
from presafe.study.statistics import check_endpoints

NAMES = sorted(file.parent.name for file in STUDIES.glob("*/study.json"))
UNFINISHED = ("attacks", "choose", "fair_head_288", "fair_head_72", "qwenthink", "searches", "ships")
"""Studies that are declared, and not read before all of their runs are there."""
TABLES = ("model", "respond", "signal", "align", "evaluate")


def declaration(name: str) -> str | Path:
    """Return what `presafe study` takes: the file beside the results, or the name of a study that ships."""
    return name if name in shipped_studies() else STUDIES / name / f"{name}.toml"


def runs_of(name: str) -> list[StudyRun]:
    return study_runs(load_study(declaration(name)))


def recipes_of(name: str) -> dict[str, Recipe]:
    return {run.name: run.recipe for run in runs_of(name)}


def changed_settings(recipe: Recipe, base: Recipe) -> set[tuple[str, str]]:
    """Return the settings in which two recipes differ, each as its table and its key."""
    settings = [(table, key) for table in TABLES for key in type(getattr(base, table)).model_fields]
    return {
        (table, key)
        for table, key in settings
        if getattr(getattr(recipe, table), key) != getattr(getattr(base, table), key)
    }


def recipes_by_condition(name: str, count: int) -> dict[str, Recipe]:
    """Return the recipes of a study's first seed by condition, its baseline's first; check that no two are the same."""
    runs = runs_of(name)
    recipes = {run.condition.name: run.recipe for run in runs if run.seed == 0}
    assert len(runs) == 3 * len(recipes) == count
    unnamed = {recipe.model_copy(update={"name": ""}).model_dump_json() for recipe in recipes.values()}
    assert len(unnamed) == len(recipes)
    assert next(iter(recipes)) == load_study(declaration(name)).baseline
    return recipes


def test_fourteen_studies_have_results_and_two_of_them_ship() -> None:
    assert len(NAMES) == 14
    assert shipped_studies() == ["control", "shipped"]
    declared = {folder.name for folder in STUDIES.iterdir() if (folder / f"{folder.name}.toml").exists()}
    assert declared - set(UNFINISHED) == set(NAMES) - {"control", "shipped"}
    assert set(UNFINISHED) <= declared


@pytest.mark.parametrize("name", UNFINISHED)
def test_declared_studies_have_an_endpoint_and_no_results_yet(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(STUDIES.parents[1])  # they name files from the root of the repository
    study = load_study(declaration(name))
    measured = study_runs(study)[0].recipe.evaluate
    check_endpoints(study.endpoint, measured_suites(measured.suites, measured.attacks))
    assert study.endpoint
    assert study.seeds_move == "everything"
    assert not (STUDIES / name / "study.json").exists()


@pytest.mark.parametrize("name", NAMES)
def test_every_study_makes_valid_recipes(name: str) -> None:
    runs = runs_of(name)
    assert len({run.name for run in runs}) == len(runs) >= len(load_study(declaration(name)).condition)


def test_study_in_the_guide_is_valid(tmp_path: Path) -> None:
    guide = (DOCS / "guides" / "studies.md").read_text(encoding="utf-8")
    (block,) = (text for text in re.findall(r"```toml\n(.*?)```", guide, flags=re.DOTALL) if "[[condition]]" in text)
    file = tmp_path / "guide.toml"
    file.write_text(block, encoding="utf-8")
    # two conditions × three seeds; λ of the shipped recipe is 0.1
    runs = study_runs(load_study(file))
    assert [(run.name, run.recipe.align.lambda_align) for run in runs[:2]] == [
        ("sft-seed0", 0.1),
        ("lambda_1-seed0", 1.0),
    ]
    assert len(runs) == 6


def stored_results(name: str) -> dict[str, RunResult]:
    """Return the committed results of a study by the name of the run."""
    files = sorted((STUDIES / name / "runs").glob("*.json"))
    return {file.stem: RunResult.model_validate_json(file.read_text(encoding="utf-8")) for file in files}


def missing_runs(name: str) -> set[str]:
    """Return the runs of a study that no one has made."""
    return {"sft-seed2", "star1-seed2"} if name == "star1" else set()


@pytest.mark.parametrize("name", NAMES)
def test_committed_runs_have_their_study_settings(name: str) -> None:
    recipes, results = recipes_of(name), stored_results(name)
    assert recipes.keys() - results.keys() == missing_runs(name)
    for run, result in results.items():
        assert parse_recipe(result.recipe, run) == recipes[run]


@pytest.mark.parametrize("name", NAMES)
def test_committed_runs_store_no_defaults(name: str) -> None:
    for run, result in stored_results(name).items():
        assert result.recipe == settings_without_defaults(parse_recipe(result.recipe, run))
        assert "null" not in json.dumps(result.recipe)


def rounded(text: str) -> Any:
    """Return the content of a JSON text, with nine digits after the point."""
    return json.loads(text, parse_float=lambda number: round(float(number), 9))


@pytest.mark.parametrize("name", NAMES)
def test_committed_summary_is_computed_from_its_runs(name: str) -> None:
    study = load_study(declaration(name))
    results = stored_results(name)
    summary = summary_of(study, study_runs(study), list(results.values()))
    folder = STUDIES / name
    committed = rounded((folder / "study.json").read_text(encoding="utf-8"))
    assert committed == {"schema": 3, **rounded(summary.model_dump_json())}
    figures = {file.stem for file in (folder / "figures").iterdir()}
    assert (folder / "study.md").read_text(encoding="utf-8") == study_markdown(summary, figures)


@pytest.mark.skipif("PRESAFE_DATA" not in os.environ, reason="needs the published files")
@pytest.mark.parametrize("name", NAMES)
def test_committed_runs_count_as_done(name: str) -> None:
    statuses = study_status(load_study(declaration(name)), STUDIES / name)
    assert {status.run.name for status in statuses if status.result is None} == missing_runs(name)


def test_control_has_five_seeds_and_methods_has_three() -> None:
    control = load_study("control")
    assert {condition.seeds or control.seeds for condition in control.condition} == {(0, 1, 2, 3, 4)}
    assert {"sft", "presafe", "random_labels"} <= {condition.system for condition in control.condition}
    study = load_study(declaration("methods"))
    for condition in study.condition:
        is_trained = methods()[condition.system].training is not None
        assert (condition.seeds or study.seeds) == ((0, 1, 2) if is_trained else (0,))
    # no two conditions are the same
    first = [run.recipe.align for run in study_runs(study) if run.seed == 0]
    assert len({(align.systems, align.lambda_align, align.lambda_start) for align in first}) == len(first)


def test_every_ablation_changes_one_setting() -> None:
    recipes = recipes_by_condition("ablations", 45)
    base = recipes.pop("presafe")
    assert base.align == load_recipe("smolthink-135m-published").align.model_copy(update={"systems": ("presafe",)})
    changed = {name: changed_settings(recipe, base) for name, recipe in recipes.items()}
    assert changed.pop("sft-steps_80") == {("align", "systems"), ("align", "max_steps")}  # differs from `sft` in one
    assert all(len(settings) == 1 for settings in changed.values())
    assert set().union(*changed.values()) == {
        ("align", "lambda_start"),
        ("align", "max_steps"),
        ("align", "systems"),
        ("respond", "alignment_queries"),
        ("respond", "classifier_queries"),
        ("signal", "reads"),
    }
    # a quarter of every kind of query, to the nearest whole one
    for name, kind in (("aligned_on_quarter", "alignment_queries"), ("classifier_quarter", "classifier_queries")):
        quarter, full = (recipe.model_dump()["respond"][kind] for recipe in (recipes[name], base))
        assert [(source["set"], source["split"]) for source in quarter] == [
            (source["set"], source["split"]) for source in full
        ]
        assert all(abs(few["n"] - source["n"] / 4) <= 0.5 for few, source in zip(quarter, full, strict=True))


def test_every_head_condition_changes_one_setting() -> None:
    recipes = recipes_by_condition("head", 27)
    base = recipes.pop("presafe_head-lambda_1")
    assert (base.align.systems, base.align.lambda_align) == (("presafe_head",), 1.0)
    changed = {name: changed_settings(recipe, base) for name, recipe in recipes.items()}
    # the head's own loss alone: coins for p′, and no L_start either
    assert changed.pop("random_labels-head") == {("align", "systems"), ("align", "lambda_start")}
    assert recipes["random_labels-head"].align.lambda_start == 0
    assert all(len(settings) == 1 for settings in changed.values())
    assert set().union(*changed.values()) == {
        ("align", "decision_position"),
        ("align", "lambda_align"),
        ("align", "layer"),
    }
    assert all((recipe.align.layer or 0) <= 30 for recipe in recipes.values())  # SmolLM2-135M has 30


def test_thought_study_changes_method_and_refusals_only() -> None:
    recipes = recipes_of("thought")
    assert len(recipes) == 5 * 5
    direct = recipes["presafe-seed4"]
    # the method sets the form of refusals itself
    assert changed_settings(recipes["presafe_thought-seed4"], direct) == {("align", "systems")}
    for name, system in (("sft-thought", "sft"), ("random_labels-thought", "random_labels")):
        recipe = recipes[f"{name}-seed4"]
        assert recipe.align.systems == (system,)
        assert changed_settings(recipe, direct) == {("align", "systems"), ("align", "refusal_target")}


def test_shipped_study_trains_the_shipped_recipe() -> None:
    ships = load_recipe("smolthink-135m")
    recipes, before = recipes_of("shipped"), recipes_of("thinking_on_only")
    for recipe in recipes.values():
        own = {
            "systems": recipe.align.systems,
            "seeds": recipe.align.seeds,
            "standardize_head": False,  # the study is older than the head that ships today
            "head_learning_rate": 1e-3,
        }
        assert recipe.align == ships.align.model_copy(update=own)
        assert (recipe.respond, recipe.signal) == (ships.respond, ships.signal)
        assert recipe.model == ships.model.model_copy(update={"dtype": "bfloat16"})
        assert recipe.evaluate.aligned_thinking == ("on", "off")
    for name in recipes.keys() & before.keys():
        assert changed_settings(recipes[name], before[name]) == {
            ("align", "max_scale"),
            ("align", "max_steps"),
            ("align", "thinking_off_share"),
            ("evaluate", "aligned_thinking"),
        }
        # as many rows with CoT on
        with_off, on_only = recipes[name].align, before[name].align
        assert abs(with_off.max_steps * (1 - with_off.thinking_off_share) - on_only.max_steps) <= 2


def test_operating_points_study_changes_no_training() -> None:
    recipes = recipes_of("operating_points")
    assert len(recipes) == 30
    for name, recipe in recipes.items():
        condition, seed = name.rsplit("-", 1)
        system = condition.split("-")[0]
        changed = changed_settings(recipe, recipes[f"{system}-{seed}"])
        assert changed == (set() if condition == system else {("align", "over_refusal")})


@pytest.mark.parametrize(
    ("name", "source"), [("operating_points", "shipped"), ("rate_5", "shipped"), ("star1", "control")]
)
def test_copied_trainings_have_the_same_settings(name: str, source: str) -> None:
    trained = {(run.condition.system, run.seed): run.recipe for run in runs_of(source)}
    for run in runs_of(name):
        if run.condition.system != "star1":  # which trains its own
            changed = changed_settings(run.recipe, trained[run.condition.system, run.seed])
            assert changed <= {("align", "over_refusal"), ("evaluate", "max_tokens")}


def test_runs_shared_by_two_studies_are_equal() -> None:
    """So that each is made once for both."""
    recipes = {name: recipes_of(name) for name in NAMES}
    num_shared = {
        ("control", "methods"): 6,
        ("control", "ablations"): 9,
        ("methods", "ablations"): 27,
        ("methods", "head"): 6,
        ("control", "thought"): 10,
        ("methods", "thought"): 9,
        ("thought", "better_baseline"): 10,
        ("ablations", "more_steps"): 6,
        ("shipped", "operating_points"): 10,
        ("operating_points", "rate_5"): 10,
    }
    for (first, second), count in num_shared.items():
        shared = recipes[first].keys() & recipes[second].keys()
        assert len(shared) == count
        assert all(recipes[first][run] == recipes[second][run] for run in shared)
