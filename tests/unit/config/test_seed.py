"""One seed for all that is drawn before the evaluation, in a recipe and in a study, and sets whose order it decides."""

from __future__ import annotations

from pathlib import Path

from presafe.config.recipe import load_recipe, parse_recipe, recipe_settings
from presafe.prompts.sets import built_in, load_sources
from presafe.study.records import settings_without_defaults
from presafe.study.spec import load_study, study_runs

STUDY = """
name = "Seeds"
recipe = "smolthink-135m-unseen"
baseline = "sft"
seeds = [0, 7]
seeds_move = "{moves}"
[[condition]]
name = "sft"
system = "sft"
"""


def test_a_recipes_seed_moves_all_but_the_evaluation() -> None:
    settings = recipe_settings("smolthink-135m-unseen")
    del settings["align"]["seeds"]
    recipe = parse_recipe({**settings, "seed": 7}, "test")
    assert (recipe.respond.seed, recipe.signal.seed, recipe.align.seeds, recipe.evaluate.seed) == (7, 7, (7,), 0)
    assert parse_recipe(settings_without_defaults(recipe), "stored") == recipe
    # a table's own seed comes first
    own = parse_recipe({**settings, "seed": 7, "signal": {**settings["signal"], "seed": 3}}, "test")
    assert (own.respond.seed, own.signal.seed) == (7, 3)
    assert "seed" not in load_recipe("smolthink-135m").model_dump(mode="json")  # older recipes hash as they did


def test_a_studys_seed_moves_what_it_says(tmp_path: Path) -> None:
    seeds = {}
    for moves in ("training", "everything"):
        file = tmp_path / f"{moves}.toml"
        file.write_text(STUDY.format(moves=moves), encoding="utf-8")
        runs = study_runs(load_study(file))
        seeds[moves] = [(run.recipe.respond.seed, run.recipe.signal.seed, run.recipe.align.seeds) for run in runs]
    assert seeds["training"] == [(0, 0, (0,)), (0, 0, (7,))]
    assert seeds["everything"] == [(0, 0, (0,)), (7, 7, (7,))]


def test_a_drawn_set_is_ordered_by_the_seed() -> None:
    respond = load_recipe("smolthink-135m-unseen").respond
    first, second = (load_sources(respond.alignment_queries, seed) for seed in (0, 7))
    assert len(first) == len(second) == 290
    assert [prompt.id for prompt in first] == [prompt.id for prompt in load_sources(respond.alignment_queries, 0)]
    assert {prompt.id for prompt in first} != {prompt.id for prompt in second}


def test_unseen_queries_made_no_teacher_and_align_no_model() -> None:
    respond = load_recipe("smolthink-135m-unseen").respond
    build = {prompt.text for name in ("harmful", "benign", "borderline") for prompt in built_in(name, "build")}
    for seed in (0, 7):
        asked = {prompt.text for prompt in load_sources(respond.classifier_queries, seed)}
        aligned = {prompt.text for prompt in load_sources(respond.alignment_queries, seed)}
        assert len(asked) == 328
        assert not asked & (aligned | build)
