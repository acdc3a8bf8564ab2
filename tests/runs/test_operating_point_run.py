"""A run that scales its adapters to an operating point, on models of a few thousand weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from presafe.config.recipe import load_recipe
from presafe.errors import PromptError
from presafe.internals.decision import decision_scores
from presafe.models.decision_head import RefusalStart
from presafe.models.loading import load_model
from presafe.records import OperatingPoint
from presafe.stages.workload import Workload
from presafe.workflows.run import run_stages


def point_of(folder: Path) -> OperatingPoint:
    return OperatingPoint.model_validate_json((folder / "operating_point.json").read_text())


def test_run_scales_its_adapter_once_despite_a_kill(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So small a model learns no refusal in six steps: half of all tokens stand for its first word, a toss-up each time.
    start = RefusalStart((), frozenset(range(148)))
    monkeypatch.setattr("presafe.stages.operating_point.refusal_start", lambda *_: start)
    text = recipe.read_text().replace("[align]", "[align]\nover_refusal = 0.5\nsave_steps = 6")
    own = tmp_path / "scaled.toml"
    own.write_text(text)
    settings = load_recipe(own)
    run = run_stages(settings, tmp_path / "run", "align")
    folder = run.path / "alignment" / "presafe"
    point = point_of(folder)
    config = folder / "adapter" / "adapter_config.json"
    assert (point.n, point.refused_as_trained) == (4, 4)
    assert point.refused in (2, 3)  # within 0.02 of the scale
    assert 0.5 < point.scale < 1
    assert json.loads(config.read_text())["lora_alpha"] == pytest.approx(32 * point.scale)

    # What it says of the harmless queries is what the exported adapter does.
    loaded = load_model(settings.model.address, adapter=folder / "adapter")
    scores = decision_scores(
        loaded, [query.text for query in Workload(settings).classifier if query.expect == "comply"], start, None
    )
    assert sum(score.weakest_logit > 0 for score in scores) == point.refused

    # Killed after the scale was written and before its record: the scale is not applied twice.
    before = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    (folder / "operating_point.json").unlink()
    shutil.rmtree(run.path / "stages")
    run_stages(settings, tmp_path / "run", "align")
    assert point_of(folder) == point
    assert json.loads(config.read_text())["lora_alpha"] == pytest.approx(32 * point.scale)
    assert (folder / "adapter" / "adapter_model.safetensors").read_bytes() == before


def test_over_refusal_without_harmless_queries_fails(recipe: Path, tmp_path: Path) -> None:
    text = recipe.read_text().replace("[align]", "[align]\nover_refusal = 0.5")
    text = text.replace('blue.jsonl", expect = "comply"', 'blue.jsonl", expect = "refuse"')
    own = tmp_path / "harmful.toml"
    own.write_text(text)
    with pytest.raises(PromptError, match=r"over_refusal.*there is none.*respond\.classifier_queries"):
        run_stages(load_recipe(own), tmp_path / "run", "align")
    assert not (tmp_path / "run").exists()
