"""Studies: what is read, what every run's recipe is, and every mistake in one line before anything is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from presafe.config.recipe import Recipe, load_recipe
from presafe.errors import RecipeError
from presafe.methods.registry import methods
from presafe.study.spec import load_study, shipped_studies, study_runs

STUDY = """
name = "Mine"
recipe = "smolthink-135m"
baseline = "sft"
seeds = [3, 4]

[[condition]]
name = "sft"
system = "sft"
seeds = [3]

[[condition]]
name = "strong"
[condition.set]
align.lambda_align = 2.0
signal = { epochs = 2 }
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def edited(old: str, new: str) -> str:
    assert old in STUDY
    return STUDY.replace(old, new)


def test_a_run_is_a_condition_with_a_seed_and_the_first_seed_of_each_comes_first(tmp_path: Path) -> None:
    runs = study_runs(load_study(write(tmp_path, STUDY)))
    assert [run.name for run in runs] == ["sft-seed3", "strong-seed3", "strong-seed4"]


def test_its_recipe_is_the_studys_with_the_conditions_overrides(tmp_path: Path) -> None:
    sft, strong, _ = (run.recipe for run in study_runs(load_study(write(tmp_path, STUDY))))
    base = load_recipe("smolthink-135m")
    assert (sft.align.systems, sft.align.seeds, sft.name) == (("sft",), (3,), "sft-seed3")
    assert (strong.align.systems, strong.align.seeds) == (("presafe",), (3,))  # the method, where none is named
    assert (strong.align.lambda_align, strong.signal.epochs) == (2.0, 2)
    # what is beside an override stays
    assert (strong.align.lambda_start, strong.align.max_steps) == (base.align.lambda_start, base.align.max_steps)
    assert strong.signal.held_out == base.signal.held_out
    assert (strong.respond, strong.evaluate, strong.model) == (base.respond, base.evaluate, base.model)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "Mine"', 'names = "Mine"', "names: Extra inputs are not permitted"),
        ('name = "strong"', 'name = "strong"\nsteps = 3', "condition.1.steps: Extra inputs are not permitted"),
        ('name = "strong"', 'name = "sft"', "two conditions are named 'sft'"),
        ('name = "strong"', 'name = "vanilla"', "`vanilla` is the model as it came"),
        ('name = "strong"', 'name = "../up"', "condition.1.name: String should match"),
        ('baseline = "sft"', 'baseline = "base"', "`baseline` is 'base', and the conditions are sft, strong"),
        ('baseline = "sft"', "", "baseline: Field required"),
        ("seeds = [3, 4]", "seeds = [3, 3]", "a seed stands twice in [3, 3]"),
        ("seeds = [3]", "seeds = []", "condition.0.seeds: Tuple should have at least 1 item"),
        ("align.lambda_align = 2.0", "align.seeds = [1]", "`align.seeds` are the condition's own"),
        ("align.lambda_align = 2.0", 'align.systems = ["sft"]', "`align.systems` and"),
        ("align.lambda_align = 2.0", "align = 2.0", "`align` is a table of settings"),
        ("align.lambda_align = 2.0", "evaluate.max_tokens = 5", "`evaluate` belongs to the study"),
        ('baseline = "sft"', 'baseline = "sft"\nset.align.seeds = [1]', "set: Value error, `align.systems` and"),
        ('baseline = "sft"', 'baseline = "sft"\nset.name = "x"', "set: Value error, `name` is that of a run"),
        ("[[condition]]", "[condition]", "is not TOML"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_study(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = write(tmp_path, edited(old, new))
    with pytest.raises(RecipeError) as caught:
        load_study(path)
    message = str(caught.value)
    assert said in message
    assert f"study {path}" in message
    assert "\n" not in message


def test_what_the_study_sets_holds_for_every_condition_and_a_conditions_own_comes_over_it(tmp_path: Path) -> None:
    own = 'baseline = "sft"\nset = { align = { lambda_align = 5.0, max_steps = 7 }, evaluate = { max_tokens = 9 } }'
    sft, strong, _ = (run.recipe for run in study_runs(load_study(write(tmp_path, edited('baseline = "sft"', own)))))
    assert (sft.align.lambda_align, sft.align.max_steps, sft.evaluate.max_tokens) == (5.0, 7, 9)
    assert (strong.align.lambda_align, strong.align.max_steps, strong.evaluate.max_tokens) == (2.0, 7, 9)
    with pytest.raises(RecipeError, match=r"smolthink-135m as the study sets it: align\.lamda"):
        study_runs(load_study(write(tmp_path, edited('baseline = "sft"', 'baseline = "sft"\nset.align.lamda = 2'))))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("align.lambda_align = 2.0", "align.lambda_align = -1", "align.lambda_align: Input should be greater than or"),
        ("align.lambda_align = 2.0", "align.lamda = 2", "align.lamda: Extra inputs are not permitted"),
        (
            'name = "strong"',
            'name = "strong"\nsystem = "none_such"',
            "align.systems.0: Value error, no method",
        ),
    ],
)
def test_overrides_that_make_no_valid_recipe_name_the_condition(tmp_path: Path, old: str, new: str, said: str) -> None:
    study = load_study(write(tmp_path, edited(old, new)))
    with pytest.raises(RecipeError) as caught:
        study_runs(study)
    assert said in str(caught.value)
    assert "condition 'strong'" in str(caught.value)


def test_a_recipe_that_is_not_there_is_not_a_conditions_mistake(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, STUDY.replace("smolthink-135m", "none-such")))
    with pytest.raises(RecipeError, match="no recipe 'none-such'"):
        study_runs(study)


def test_a_study_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(RecipeError, match=r"no study 'none-such'\. Give a \.toml file or one of: .*methods"):
        load_study("none-such")


@pytest.mark.parametrize("name", shipped_studies())
def test_every_shipped_study_makes_valid_recipes(name: str) -> None:
    study = load_study(name)
    runs = study_runs(study)
    assert len({run.name for run in runs}) == len(runs) >= len(study.condition)


def test_the_study_in_the_readme_is_valid(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (block,) = (each for each in re.findall(r"```toml\n(.*?)```", readme, flags=re.DOTALL) if "[[condition]]" in each)
    runs = study_runs(load_study(write(tmp_path, block)))
    assert [(run.name, run.recipe.align.lambda_align) for run in runs[:2]] == [
        ("sft-seed0", 0.1),
        ("lambda_1-seed0", 1.0),
    ]


def test_the_control_has_five_seeds_of_each_and_the_methods_three_of_what_is_trained() -> None:
    control = load_study("control")
    assert {condition.seeds or control.seeds for condition in control.condition} == {(0, 1, 2, 3, 4)}
    assert {"sft", "presafe", "random_labels"} <= {condition.system for condition in control.condition}
    study = load_study("methods")
    for condition in study.condition:
        is_trained = methods()[condition.system].training is not None
        assert (condition.seeds or study.seeds) == ((0, 1, 2) if is_trained else (0,))
    # no two conditions are the same
    first = [run.recipe.align for run in study_runs(study) if run.seed == 0]
    assert len({(each.systems, each.lambda_align, each.lambda_start) for each in first}) == len(first)


TABLES = ("model", "respond", "signal", "align", "evaluate")


def _changed(recipe: Recipe, base: Recipe) -> set[tuple[str, str]]:
    settings = [(table, key) for table in TABLES for key in type(getattr(base, table)).model_fields]
    return {(t, key) for t, key in settings if getattr(getattr(recipe, t), key) != getattr(getattr(base, t), key)}


def _seed_0(name: str, count: int) -> dict[str, Recipe]:
    """The recipes of a study's first seed by condition, its baseline's first; no two are the same."""
    runs = study_runs(load_study(name))
    recipes = {run.condition.name: run.recipe for run in runs if run.seed == 0}
    assert len(runs) == 3 * len(recipes) == count
    unnamed = {recipe.model_copy(update={"name": ""}).model_dump_json() for recipe in recipes.values()}
    assert len(unnamed) == len(recipes)
    assert next(iter(recipes)) == load_study(name).baseline
    return recipes


def test_every_ablation_differs_from_presafe_in_one_thing() -> None:
    recipes = _seed_0("ablations", 45)
    base = recipes.pop("presafe")
    assert base.align == load_recipe("smolthink-135m-published").align.model_copy(update={"systems": ("presafe",)})
    changed = {name: _changed(recipe, base) for name, recipe in recipes.items()}
    assert changed.pop("sft-steps_80") == {("align", "systems"), ("align", "max_steps")}  # differs from `sft` in one
    assert all(len(found) == 1 for found in changed.values())
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
        some, every = getattr(recipes[name].respond, kind), getattr(base.respond, kind)
        assert [(each.set, each.split) for each in some] == [(each.set, each.split) for each in every]
        assert all(abs(few.n - each.n / 4) <= 0.5 for few, each in zip(some, every, strict=True))


def test_every_condition_of_the_head_differs_from_it_in_one_thing() -> None:
    recipes = _seed_0("head", 27)
    base = recipes.pop("presafe_head-lambda_1")
    assert (base.align.systems, base.align.lambda_align) == (("presafe_head",), 1.0)
    changed = {name: _changed(recipe, base) for name, recipe in recipes.items()}
    # the head's own loss alone: coins for p′, and no L_start either
    assert changed.pop("random_labels-head") == {("align", "systems"), ("align", "lambda_start")}
    assert recipes["random_labels-head"].align.lambda_start == 0
    assert all(len(found) == 1 for found in changed.values())
    assert set().union(*changed.values()) == {
        ("align", "decision_position"),
        ("align", "lambda_align"),
        ("align", "layer"),
    }
    assert all((recipe.align.layer or 0) <= 30 for recipe in recipes.values())  # SmolLM2-135M has 30


def test_the_study_of_thought_changes_the_method_and_the_form_of_refusals_only() -> None:
    recipes = {run.name: run.recipe for run in study_runs(load_study("thought"))}
    assert len(recipes) == 5 * 5
    direct = recipes["presafe-seed4"]
    assert _changed(recipes["presafe_thought-seed4"], direct) == {("align", "systems")}  # it sets the form itself
    for name, system in (("sft-thought", "sft"), ("random_labels-thought", "random_labels")):
        recipe = recipes[f"{name}-seed4"]
        assert recipe.align.systems == (system,)
        assert _changed(recipe, direct) == {("align", "systems"), ("align", "refusal_target")}


def test_the_study_of_the_shipped_recipe_trains_what_ships() -> None:
    ships = load_recipe("smolthink-135m")
    for run in study_runs(load_study("shipped")):
        own = {"systems": run.recipe.align.systems, "seeds": run.recipe.align.seeds}
        assert run.recipe.align == ships.align.model_copy(update=own)
        assert (run.recipe.respond, run.recipe.signal) == (ships.respond, ships.signal)
        assert run.recipe.model == ships.model.model_copy(update={"dtype": "bfloat16"})
        assert run.recipe.evaluate.aligned_thinking == ("on", "off")
    of_runs = {run.name: run.recipe for run in study_runs(load_study("shipped"))}
    before = {run.name: run.recipe for run in study_runs(load_study("thinking_on_only"))}
    for name in of_runs.keys() & before.keys():
        assert _changed(of_runs[name], before[name]) == {
            ("align", "max_scale"),
            ("align", "max_steps"),
            ("align", "thinking_off_share"),
            ("evaluate", "aligned_thinking"),
        }
        # as many rows with CoT on
        (now, then) = (each[name].align for each in (of_runs, before))
        assert abs(now.max_steps * (1 - now.thinking_off_share) - then.max_steps) <= 2


def test_the_study_of_operating_points_changes_nothing_that_is_trained() -> None:
    recipes = {run.name: run.recipe for run in study_runs(load_study("operating_points"))}
    assert len(recipes) == 30
    for name, recipe in recipes.items():
        condition, seed = name.rsplit("-", 1)
        system = condition.split("-")[0]
        changed = _changed(recipe, recipes[f"{system}-{seed}"])
        assert changed == (set() if condition == system else {("align", "over_refusal")})


@pytest.mark.parametrize(
    ("name", "like"), [("operating_points", "shipped"), ("rate_5", "shipped"), ("star1", "control")]
)
def test_studies_that_take_trainings_train_as_the_one_they_take_them_from(name: str, like: str) -> None:
    made = {(run.condition.system, run.seed): run.recipe for run in study_runs(load_study(like))}
    for run in study_runs(load_study(name)):
        if run.condition.system == "star1":  # its own
            continue
        changed = _changed(run.recipe, made[run.condition.system, run.seed])
        assert changed <= {("align", "over_refusal"), ("evaluate", "max_tokens")}


def test_runs_that_two_studies_share_are_the_same_runs() -> None:
    """So that each is done once for both."""
    runs = {name: {run.name: run.recipe for run in study_runs(load_study(name))} for name in shipped_studies()}
    shared = {
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
    for (one, other), count in shared.items():
        both = runs[one].keys() & runs[other].keys()
        assert len(both) == count
        assert all(runs[one][name] == runs[other][name] for name in both)


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ("[-1]", "seeds.0: Input should be greater"),
        ("[true]", "seeds.0: Input should be a valid integer"),
        ("[1.0]", "seeds.0: "),
    ],
)
def test_seeds_are_whole_numbers_that_every_generator_takes(tmp_path: Path, seeds: str, said: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        f'name = "x"\nrecipe = "smolthink-135m"\nbaseline = "a"\nseeds = {seeds}\n[[condition]]\nname = "a"\n', "utf-8"
    )
    with pytest.raises(RecipeError, match=re.escape(said)):
        load_study(file)


def test_a_name_that_a_folder_cannot_have_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    long = "a" * 101
    file.write_text(
        f'name = "x"\nrecipe = "smolthink-135m"\nbaseline = "{long}"\n[[condition]]\nname = "{long}"\n', "utf-8"
    )
    with pytest.raises(RecipeError, match=r"condition\.0\.name: String should have at most 100 characters"):
        load_study(file)
