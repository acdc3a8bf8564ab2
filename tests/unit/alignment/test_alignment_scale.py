"""The scale at which an adapter refuses as many harmless queries as it may."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_run_tiny_models import recipe  # noqa: F401  (its models and queries)

from presafe.alignment.export import export_adapter
from presafe.alignment.scale import find_scale, rescale
from presafe.errors import PromptError
from presafe.internals.decision import decision_scores
from presafe.models.decision_head import RefusalStart
from presafe.models.loading import load_model
from presafe.recipe import load_recipe
from presafe.records import OperatingPoint
from presafe.stages.run import run_stages
from presafe.stages.systems import classifier_queries


@pytest.mark.parametrize(("allowed", "scale"), [(0, 0.8), (1, 0.95), (2, 1.1), (3, 1.3)])
def test_the_next_query_is_about_to_be_refused(allowed: int, scale: float) -> None:
    # Queries are refused from 0.8, 0.95, 1.1 and 1.3 of the scale on.
    at = (11, 8, 13, 9.5)
    found = find_scale(lambda scale, among: [10 * scale - at[each] for each in among], 4, allowed)
    assert found == pytest.approx(scale, abs=0.02)


SLOPES, FROM = st.floats(0.5, 20), st.floats(0.55, 1.45)


@given(
    # So few that all are read at every scale; or more of one slope: one far off may not overtake those that are near.
    st.lists(st.tuples(SLOPES, FROM), min_size=1, max_size=10)
    | SLOPES.flatmap(lambda slope: st.lists(st.tuples(st.just(slope), FROM), min_size=1, max_size=30)),
    st.data(),
)
def test_just_below_the_scale_no_more_are_refused_and_just_above_it_more(lines, data) -> None:
    allowed, everything = data.draw(st.integers(0, len(lines) - 1)), range(len(lines))

    def read(scale: float, among) -> list[float]:
        return [lines[each][0] * (scale - lines[each][1]) for each in among]

    found = find_scale(read, len(lines), allowed)
    assert found is not None
    assert sum(logit > 0 for logit in read(found - 0.021, everything)) <= allowed
    assert sum(logit > 0 for logit in read(found + 0.021, everything)) > allowed


@pytest.mark.parametrize("logit", [-5.0, 5.0])
def test_a_number_that_no_scale_gives_is_none(logit: float) -> None:
    assert find_scale(lambda scale, among: [logit + each * scale for each in among], 2, 1) is None


@pytest.mark.parametrize(("most", "scale"), [(1.5, 1.3), (1.35, 1.3), (1.2, None), (1.0, None)])
def test_no_scale_is_above_the_largest(most: float, scale: float | None) -> None:
    tried = []

    def read(scale: float, among) -> list[float]:
        tried.append(scale)
        return [8 * (scale - 1.3) - each for each in among]

    found = find_scale(read, 20, 0, most)
    assert found == (None if scale is None else pytest.approx(scale, abs=0.02))
    assert max(tried) <= most


def test_few_scales_are_tried_and_only_the_nearest_queries_again() -> None:
    tried = []

    def read(scale: float, among) -> list[float]:
        tried.append((scale, len(among)))
        return [8 * (scale - 0.9) + (scale - 0.9) ** 2 - each for each in among]

    assert find_scale(read, 100, 0) == pytest.approx(0.9, abs=0.02)
    assert tried[0] == (1.0, 100)
    assert len(tried) <= 6
    assert {num for _, num in tried[1:]} == {10}


def test_a_rescaled_adapter_is_the_trained_one_times_the_scale(
    make_model, make_trainer, randomise_adapter, rows, tmp_path
) -> None:
    from peft import PeftModel
    from peft.helpers import rescale_adapter_scale

    trainer = make_trainer(make_model(), rows)
    randomise_adapter(trainer)
    export_adapter(trainer.model, tmp_path)
    alpha = json.loads((tmp_path / "adapter_config.json").read_text())["lora_alpha"]
    ids = torch.tensor([rows[0]["input_ids"]])
    with torch.no_grad(), rescale_adapter_scale(trainer.model.eval(), 1.25):
        expected = trainer.model(ids).logits
    rescale(tmp_path, alpha * 1.25)
    loaded = PeftModel.from_pretrained(make_model(), str(tmp_path)).eval()
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, expected)
        assert not torch.allclose(expected, make_model()(ids).logits, atol=1e-2)


def point_of(folder) -> OperatingPoint:
    return OperatingPoint.model_validate_json((folder / "operating_point.json").read_text())


def test_a_run_scales_what_it_trained_and_after_a_kill_scales_it_once(recipe, tmp_path, monkeypatch) -> None:  # noqa: F811
    # So small a model learns no refusal in six steps: half of all tokens stand for its first word, a toss-up each time.
    start = RefusalStart((), frozenset(range(150)))
    monkeypatch.setattr("presafe.stages.operating_point.refusal_start", lambda *_: start)
    text = recipe.read_text().replace("[align]", "[align]\nover_refusal = 0.5\nsave_steps = 6")
    own = tmp_path / "scaled.toml"
    own.write_text(text)
    settings = load_recipe(own)
    run = run_stages(settings, tmp_path / "run", "align")
    folder = run.path / "alignment" / "presafe"
    point = point_of(folder)
    config = folder / "adapter" / "adapter_config.json"
    assert (point.n, point.refused_as_trained) == (4, 3)
    assert point.refused in (2, 3)  # within 0.02 of the scale
    assert 0.5 < point.scale < 1
    assert json.loads(config.read_text())["lora_alpha"] == pytest.approx(32 * point.scale)

    # What it says of the harmless queries is what the exported adapter does.
    loaded = load_model(settings.model.address, adapter=folder / "adapter")
    scores = decision_scores(
        loaded, [query.text for query in classifier_queries(settings) if query.expect == "comply"], start, None
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


def test_a_run_that_has_no_harmless_query_to_read_says_so_at_once(recipe, tmp_path) -> None:  # noqa: F811
    text = recipe.read_text().replace("[align]", "[align]\nover_refusal = 0.5")
    text = text.replace('blue.jsonl", expect = "comply"', 'blue.jsonl", expect = "refuse"')
    own = tmp_path / "harmful.toml"
    own.write_text(text)
    with pytest.raises(PromptError, match=r"over_refusal.*there is none.*respond\.classifier_queries"):
        run_stages(load_recipe(own), tmp_path / "run", "align")
    assert not (tmp_path / "run").exists()
