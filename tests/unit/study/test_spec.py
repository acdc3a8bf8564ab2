"""Declarations of studies: the recipe of every run, and each mistake in one line before anything is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from presafe.config.recipe import load_recipe
from presafe.errors import RecipeError
from presafe.study.spec import load_study, study_runs

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
    """Write a study's file."""
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def edited(old: str, new: str) -> str:
    """Return the text of the study with one replacement."""
    assert old in STUDY
    return STUDY.replace(old, new)


def test_first_seed_of_every_condition_runs_first(tmp_path: Path) -> None:
    runs = study_runs(load_study(write(tmp_path, STUDY)))
    assert [run.name for run in runs] == ["sft-seed3", "strong-seed3", "strong-seed4"]


def test_run_recipe_has_the_overrides_of_its_condition(tmp_path: Path) -> None:
    sft, strong, _ = (run.recipe for run in study_runs(load_study(write(tmp_path, STUDY))))
    base = load_recipe("smolthink-135m")
    assert (sft.align.systems, sft.align.seeds, sft.name) == (("sft",), (3,), "sft-seed3")
    assert (strong.align.systems, strong.align.seeds) == (("presafe",), (3,))  # the default method
    assert (strong.align.lambda_align, strong.signal.epochs) == (2.0, 2)
    # settings beside an override are kept
    assert (strong.align.lambda_start, strong.align.max_steps) == (base.align.lambda_start, base.align.max_steps)
    assert strong.signal.held_out == base.signal.held_out
    assert (strong.respond, strong.evaluate, strong.model) == (base.respond, base.evaluate, base.model)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "Mine"', 'names = "Mine"', "names: Extra inputs are not permitted"),
        ('name = "strong"', 'name = "strong"\nsteps = 3', "condition.1.steps: Extra inputs are not permitted"),
        ('name = "strong"', 'name = "sft"', "two conditions are named 'sft'"),
        ('name = "strong"', 'name = "vanilla"', "`vanilla` is the model as it came"),
        ('name = "strong"', 'name = "../up"', "condition.1.name: String should match"),
        ('baseline = "sft"', 'baseline = "base"', "`baseline` is 'base', but the conditions are sft, strong"),
        ('baseline = "sft"', "", "baseline: Field required"),
        ("seeds = [3, 4]", "seeds = [3, 3]", "a seed is repeated in [3, 3]"),
        ("seeds = [3]", "seeds = []", "condition.0.seeds: Tuple should have at least 1 item"),
        ("align.lambda_align = 2.0", "align.seeds = [1]", "`align.seeds` are the condition's own"),
        ("align.lambda_align = 2.0", 'align.systems = ["sft"]', "`align.systems` and"),
        ("align.lambda_align = 2.0", "align = 2.0", "`align` is a table of settings"),
        ("align.lambda_align = 2.0", "evaluate.max_tokens = 5", "`evaluate` belongs to the study"),
        ('baseline = "sft"', 'baseline = "sft"\nset.align.seeds = [1]', "set: Value error, `align.systems` and"),
        ('baseline = "sft"', 'baseline = "sft"\nset.name = "x"', "set: Value error, `name` is set for every run"),
        ("[[condition]]", "[condition]", "is not TOML"),
    ],
)
def test_mistake_is_one_line_that_names_the_study(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path, edited(old, new))
    with pytest.raises(RecipeError) as caught:
        load_study(path)
    error = str(caught.value)
    assert message in error
    assert f"study {path}" in error
    assert "\n" not in error


def test_condition_overrides_take_precedence_over_the_study(tmp_path: Path) -> None:
    own = 'baseline = "sft"\nset = { align = { lambda_align = 5.0, max_steps = 7 }, evaluate = { max_tokens = 9 } }'
    sft, strong, _ = (run.recipe for run in study_runs(load_study(write(tmp_path, edited('baseline = "sft"', own)))))
    assert (sft.align.lambda_align, sft.align.max_steps, sft.evaluate.max_tokens) == (5.0, 7, 9)
    assert (strong.align.lambda_align, strong.align.max_steps, strong.evaluate.max_tokens) == (2.0, 7, 9)
    with pytest.raises(RecipeError, match=r"smolthink-135m as the study sets it: align\.lamda"):
        study_runs(load_study(write(tmp_path, edited('baseline = "sft"', 'baseline = "sft"\nset.align.lamda = 2'))))


@pytest.mark.parametrize(
    ("old", "new", "message"),
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
def test_invalid_overrides_name_the_condition(tmp_path: Path, old: str, new: str, message: str) -> None:
    study = load_study(write(tmp_path, edited(old, new)))
    with pytest.raises(RecipeError) as caught:
        study_runs(study)
    assert message in str(caught.value)
    assert "condition 'strong'" in str(caught.value)


def test_missing_recipe_is_named(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, STUDY.replace("smolthink-135m", "none-such")))
    with pytest.raises(RecipeError, match="no recipe 'none-such'"):
        study_runs(study)


def test_unknown_study_lists_the_shipped_ones() -> None:
    with pytest.raises(RecipeError, match=r"no study 'none-such'\. Give a \.toml file or one of: control, shipped"):
        load_study("none-such")


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ("[-1]", "seeds.0: Input should be greater"),
        ("[true]", "seeds.0: Input should be a valid integer"),
        ("[1.0]", "seeds.0: "),
    ],
)
def test_seeds_are_whole_numbers(tmp_path: Path, seeds: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        f'name = "x"\nrecipe = "smolthink-135m"\nbaseline = "a"\nseeds = {seeds}\n[[condition]]\nname = "a"\n', "utf-8"
    )
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_study(file)


def test_name_too_long_for_a_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    long = "a" * 101
    file.write_text(
        f'name = "x"\nrecipe = "smolthink-135m"\nbaseline = "{long}"\n[[condition]]\nname = "{long}"\n', "utf-8"
    )
    with pytest.raises(RecipeError, match=r"condition\.0\.name: String should have at most 100 characters"):
        load_study(file)
