"""Measuring outside a recipe: its settings, and the folders that belong to them."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from fake_server import completion, serving
from pydantic import ValidationError

from presafe.config.measure import MeasureSettings
from presafe.config.recipe import ModelSettings, SamplingSettings
from presafe.errors import RunError
from presafe.prompts.sets import built_in
from presafe.records import Prompt
from presafe.workflows.measure import measure
from presafe.workflows.sweep import grid, sweep

ANSWER = completion("so\n</think>\n\nHere it is.")
FIRST, SECOND = {"temperature": 0.7, "top_p": 0.9, "top_k": 0}, {"temperature": 1.0, "top_p": 0.9, "top_k": 0}


def suites() -> dict[str, list[Prompt]]:
    return {"smolthink_benign": list(built_in("benign", "held_out")[:2])}


def older_model(address: str) -> dict[str, Any]:
    """Return a model in a folder's settings, as commit b2639ed wrote it."""
    return {"address": address, "tokenizer": None, "family": None, "dtype": "float32", "adapter": None}


def older_measurement(address: str, sampling: dict[str, Any]) -> dict[str, Any]:
    """Return measurement.json as commit b2639ed wrote it."""
    return {
        "model": older_model(address),
        "suites": {"smolthink_benign": 2},
        "thinking": ["on"],
        "max_tokens": 8,
        "seed": 0,
        "samples": 1,
        "sampling": sampling,
        "sandbox": None,
        "judge": None,
        "judge_thought": None,
    }


def older_sweep(address: str) -> dict[str, Any]:
    """Return sweep.json as commit b2639ed wrote it."""
    return {
        "model": older_model(address),
        "suites": {"smolthink_benign": 2},
        "cells": ["t0.7-p0.9-k0", "t1-p0.9-k0"],
        "thinking": ["on"],
        "samples": 1,
        "max_tokens": 8,
        "judge": None,
        "judge_thought": None,
    }


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def replace_settings(path: Path, settings: dict[str, Any]) -> None:
    """Put older settings into a folder: into its file of settings and into its manifest."""
    path.write_text(json.dumps(settings), encoding="utf-8")
    manifest = path.with_name("manifest.json")
    manifest.write_text(json.dumps(read(manifest) | {"settings": settings}), encoding="utf-8")


def test_an_older_measurement_is_resumed(tmp_path: Path) -> None:
    settings = MeasureSettings(thinking=("on",), max_tokens=8)
    with serving(lambda *_: ANSWER) as fake:
        model = ModelSettings(address=fake.address)
        older = older_measurement(fake.address, {"temperature": None, "top_p": None, "top_k": None})
        measure(model, suites(), tmp_path / "out", settings)
        assert read(tmp_path / "out" / "measurement.json") == older
        replace_settings(tmp_path / "out" / "measurement.json", older)
        num_asked = len(fake.asked)
        assert num_asked == 1 + 2  # the greeting and two prompts
        measure(model, suites(), tmp_path / "out", settings)
        assert len(fake.asked) == num_asked
        with pytest.raises(RunError, match="seed: 0 → 1"):
            measure(model, suites(), tmp_path / "out", settings.model_copy(update={"seed": 1}))


def test_an_older_sweep_is_resumed(tmp_path: Path) -> None:
    settings, out = MeasureSettings(thinking=("on",), max_tokens=8), tmp_path / "out"
    with serving(lambda *_: ANSWER) as fake:
        model, cells = ModelSettings(address=fake.address), grid([0.7, 1.0], [0.9], [0])
        sweep(model, suites(), cells, out, settings)
        assert read(out / "sweep.json") == older_sweep(fake.address)
        for name, cell in (("t0.7-p0.9-k0", FIRST), ("t1-p0.9-k0", SECOND)):
            assert read(out / "cells" / name / "measurement.json") == older_measurement(fake.address, cell)
        replace_settings(out / "sweep.json", older_sweep(fake.address))
        num_asked = len(fake.asked)
        assert num_asked == 2 * (1 + 2)  # two cells, each with a greeting and two prompts
        sweep(model, suites(), cells, out, settings)
        assert len(fake.asked) == num_asked


def test_the_default_budget_is_the_familys(tmp_path: Path) -> None:
    # Failed first: `measure` took 160 tokens where the command line took the family's budget.
    family = (resources.files("presafe.models") / "families" / "smolthink.toml").read_text(encoding="utf-8")
    assert "max_tokens = 160\n" in family
    file = tmp_path / "mine.toml"
    file.write_text(family.replace("max_tokens = 160\n", "max_tokens = 77\n"), encoding="utf-8")
    with serving(lambda *_: ANSWER) as fake:
        model = ModelSettings(address=fake.address, family=str(file))
        measure(model, suites(), tmp_path / "out", MeasureSettings(thinking=("on",)))
        assert [body["max_tokens"] for body in fake.asked] == [1, 77, 77]
    assert read(tmp_path / "out" / "measurement.json")["max_tokens"] == 77


def test_a_sweep_refuses_a_setting_without_effect(tmp_path: Path) -> None:
    settings = MeasureSettings(sampling=SamplingSettings(temperature=0.5))
    with pytest.raises(RunError, match=r"a sweep sets how tokens are drawn.*temperature=0\.5"):
        sweep(ModelSettings(address="smolthink"), suites(), grid([0.7], [1.0], [0]), tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"thinking": ("maybe",)}, "'low' or 'off'"),
        ({"thinking": ()}, "at least 1 item"),
        ({"thinking": ("on", "on")}, "named twice"),
        ({"max_tokens": 0}, "greater than or equal to 1"),
        ({"samples": 1.5}, "valid integer"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"budget": 8}, "Extra inputs"),
    ],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        MeasureSettings.model_validate(settings)


def test_settings_are_frozen() -> None:
    settings = MeasureSettings.model_validate({"thinking": ["off"]})
    assert settings.thinking == ("off",)
    with pytest.raises(ValidationError, match="frozen"):
        settings.samples = 2
