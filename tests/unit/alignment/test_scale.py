"""The scale at which an adapter refuses as many harmless queries as it may."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import Row, TrainerFactory, make_model, randomize_adapter

from presafe.alignment.export import export_adapter
from presafe.alignment.scale import find_scale, rescale


@pytest.mark.parametrize(("allowed", "scale"), [(0, 0.8), (1, 0.95), (2, 1.1), (3, 1.3)])
def test_scale_stops_where_the_next_query_is_refused(allowed: int, scale: float) -> None:
    # Queries are refused from 0.8, 0.95, 1.1 and 1.3 of the scale on.
    at = (11, 8, 13, 9.5)
    gamma = find_scale(lambda scale, queries: [10 * scale - at[query] for query in queries], 4, allowed)
    assert gamma == pytest.approx(scale, abs=0.02)


SLOPES, FROM = st.floats(0.5, 20), st.floats(0.55, 1.45)


@given(
    # So few that all are read at every scale; or more of one slope: one far off may not overtake those that are near.
    st.lists(st.tuples(SLOPES, FROM), min_size=1, max_size=10)
    | SLOPES.flatmap(lambda slope: st.lists(st.tuples(st.just(slope), FROM), min_size=1, max_size=30)),
    st.data(),
)
def test_more_are_refused_just_above_the_scale(lines: Any, data: Any) -> None:
    allowed, everything = data.draw(st.integers(0, len(lines) - 1)), range(len(lines))

    def log_odds(scale: float, queries: Sequence[int]) -> list[float]:
        return [lines[query][0] * (scale - lines[query][1]) for query in queries]

    gamma = find_scale(log_odds, len(lines), allowed)
    assert gamma is not None
    assert sum(logit > 0 for logit in log_odds(gamma - 0.021, everything)) <= allowed
    assert sum(logit > 0 for logit in log_odds(gamma + 0.021, everything)) > allowed


@pytest.mark.parametrize("logit", [-5.0, 5.0])
def test_no_scale_if_the_number_cannot_be_met(logit: float) -> None:
    assert find_scale(lambda scale, queries: [logit + query * scale for query in queries], 2, 1) is None


@pytest.mark.parametrize(("largest", "scale"), [(1.5, 1.3), (1.35, 1.3), (1.2, None), (1.0, None)])
def test_scale_stops_at_the_largest(largest: float, scale: float | None) -> None:
    tried = []

    def log_odds(scale: float, queries: Sequence[int]) -> list[float]:
        tried.append(scale)
        return [8 * (scale - 1.3) - query for query in queries]

    gamma = find_scale(log_odds, 20, 0, largest)
    assert gamma == (None if scale is None else pytest.approx(scale, abs=0.02))
    assert max(tried) <= largest


def test_search_scores_few_scales_and_nearest_queries() -> None:
    tried = []

    def log_odds(scale: float, queries: Sequence[int]) -> list[float]:
        tried.append((scale, len(queries)))
        return [8 * (scale - 0.9) + (scale - 0.9) ** 2 - query for query in queries]

    assert find_scale(log_odds, 100, 0) == pytest.approx(0.9, abs=0.02)
    assert tried[0] == (1.0, 100)
    assert len(tried) <= 6
    assert {num for _, num in tried[1:]} == {10}


def test_rescaled_adapter_is_the_trained_times_scale(
    make_trainer: TrainerFactory, rows: list[Row], tmp_path: Path
) -> None:
    from peft import PeftModel
    from peft.helpers import rescale_adapter_scale

    trainer = make_trainer(make_model(), rows)
    randomize_adapter(trainer)
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
