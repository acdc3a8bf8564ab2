"""Callbacks that a recipe names: they are called in every training, and what cannot be used is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import make_model
from tiny_training import SETTINGS, fit_rows

from presafe.alignment.callbacks import own_callbacks
from presafe.alignment.fit import HISTORY, FitSettings, fit
from presafe.config.recipe import load_recipe, parse_recipe, recipe_settings
from presafe.errors import RecipeError
from presafe.models.rendering import Renderer
from presafe.records import HistoryPoint
from presafe.runs.io import read_jsonl
from presafe.workflows.run import run_stages

MODULE = """
from transformers import TrainerCallback

EVENTS = []
NOT_A_CLASS = 3

class Watch(TrainerCallback):
    def on_train_begin(self, args, state, control, **rest):
        EVENTS.append(("begin", id(self)))

    def on_log(self, args, state, control, logs=None, **rest):
        EVENTS.append((state.global_step, sorted(logs)))

class Other:
    pass

class Needs(TrainerCallback):
    def __init__(self, path):
        pass
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module of a user, in a folder of PYTHONPATH; return its name."""
    name = f"callbacks_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "breaks.py").write_text("raise RuntimeError('no\\nlicense')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_callback_sees_every_step_of_every_training(module: str, renderer: Renderer, tmp_path: Path) -> None:
    align = SETTINGS.model_copy(update={"callbacks": (f"{module}:Watch",), "max_steps": 3})
    for system in ("sft", "presafe"):
        folder = tmp_path / system
        settings = FitSettings(align=align, lambda_align=1.0, seed=0, folder=folder, label=system, base_model="tiny")
        fit(make_model(), renderer, fit_rows(), settings)
        assert len(read_jsonl(folder / HISTORY, HistoryPoint)) == 3
    events = __import__(module).EVENTS
    begun = [event for event in events if event[0] == "begin"]
    assert len(begun) == 2
    # a log after each of the three steps with the terms of the loss, and one at the end
    steps = [step for step, names in events if step != "begin" and "sft_loss" in names]
    assert steps == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no_such_module:Watch", "no_such_module raised ModuleNotFoundError: No module named 'no_such_module'"),
        ("breaks:Watch", "breaks raised RuntimeError: no license"),
        ("MODULE:Absent", "which is not in that module"),
        ("MODULE:Other", "which is no TrainerCallback of transformers"),
        ("MODULE:NOT_A_CLASS", "which is no TrainerCallback of transformers"),
        ("MODULE:Needs", "which raised TypeError"),
    ],
)
def test_what_is_no_callback_is_one_line(module: str, name: str, problem: str) -> None:
    named = name.replace("MODULE", module)
    with pytest.raises(RecipeError, match=f"^align.callbacks names {named}, ") as caught:
        own_callbacks([named])
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)


def test_a_callback_is_checked_before_the_first_token(module: str, tmp_path: Path) -> None:
    settings = recipe_settings("smolthink-135m")
    settings["align"] |= {"callbacks": [f"{module}:Other"]}
    with pytest.raises(RecipeError, match="no TrainerCallback"):
        run_stages(parse_recipe(settings, "mine"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["Watch", "module.Watch", "a.b:", ":Watch", "a b:C", "../a:B", "a:B.c", "a-b:C"])
def test_a_name_of_another_form_is_an_error(name: str) -> None:
    settings = recipe_settings("smolthink-135m")
    settings["align"] |= {"callbacks": [name]}
    with pytest.raises(RecipeError, match=r"align\.callbacks"):
        parse_recipe(settings, "mine")


def test_a_recipe_without_callbacks_is_stored_as_before() -> None:
    assert "callbacks" not in load_recipe("smolthink-135m").model_dump(mode="json")["align"]
