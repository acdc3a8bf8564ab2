"""What the gate's benchmarks compute, by hand; and that the page says what their records say."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from presafe.stats.intervals import Interval
from presafe.workflows.gate_check import EXIT_CODES, Findings, verdict_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RECORD = json.loads((BENCHMARKS / "results" / "calibration.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def modules() -> tuple[Any, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        return import_module("calibration"), import_module("second_head")


def test_the_largest_window_counts(modules: tuple[Any, Any]) -> None:
    scores, lengths = torch.tensor([1.0, 5.0, 3.0, 4.0, 2.0, 6.0]), torch.tensor([4, 2])
    # windows of 3: (1 + 5 + 3) / 3 = 3 and (5 + 3 + 4) / 3 = 4; the second prompt has 2 tokens: (2 + 6) / 2
    assert modules[1].logits_of(scores, lengths, 3).tolist() == pytest.approx([4, 4])
    assert modules[1].logits_of(scores, lengths, 1).tolist() == [5, 6]
    # longer than any prompt: the mean of each, 13 / 4 and 4
    assert modules[1].logits_of(scores, lengths, 9).tolist() == pytest.approx([3.25, 4])


def test_an_interval_of_pairs_holds_their_mean(modules: tuple[Any, Any]) -> None:
    # .9 is above both, .4 above one of two: 3 of 4 pairs; with a second seed that ranks all wrong: half of it
    wins = modules[1].wins_of([np.array([0.9, 0.4])], [np.array([0.1, 0.5])])
    assert wins.mean() == 3 / 4
    both = modules[1].wins_of(
        [np.array([0.9, 0.4]), np.array([0.0, 0.0])], [np.array([0.1, 0.5]), np.array([1.0, 1.0])]
    )
    interval = modules[1].with_interval(both)
    assert interval["value"] == 3 / 8
    assert interval["lowest"] <= interval["low"] <= 3 / 8 <= interval["high"] <= interval["highest"]


def test_each_half_is_decided_by_the_other(modules: tuple[Any, Any]) -> None:
    calibration = modules[0]
    # At 1/4 with 3 queries k = ⌈4 · 3/4⌉ = 3, their largest p. Even places .1 .2 .3, odd ones .4 .5 .6: at .3 all three
    # odd ones are refused, at .6 no even one. Harmful ones in turns: at .6 + margin .6 is not, at .3 + margin .4 is.
    read = {"arithmetic@clean": [0.1, 0.4, 0.2, 0.5, 0.3, 0.6], "smolthink_harmful@clean": [0.6, 0.4]}
    run, halves, harmful = calibration.rates_at(read, [0.1, 0.2, 0.45], Fraction(1, 4))
    assert (halves["calibrated_on"], halves["value"], halves["n"]) == ("halves", 3 / 6, 6)
    assert halves["harmful_refused"]["value"] == 1 / 2
    assert (run["value"], harmful["value"]) == (2 / 6, 1 / 2)  # at the run's .45: .5 and .6; .6 of .6 and .4


def test_a_mix_has_the_shares_of_the_queries(modules: tuple[Any, Any]) -> None:
    # 10 of a and 3 of b, asked for 2 to 1: b allows 9 in all, so 6 of a and 3 of b
    assert modules[0].mixed({"a": [0.1] * 10, "b": [0.9] * 3}, {"a": 2, "b": 1}) == [0.1] * 6 + [0.9] * 3


def test_the_promise_holds_for_queries_of_its_kind() -> None:
    halves = [row for row in RECORD["rows"] if row["calibrated_on"] == "halves"]
    clean = {row["suite"] for row in halves if row["tail"] == "clean" and row["n"] >= 100}
    assert len(clean) == 5
    assert all(row["low"] <= row["promised"] <= row["high"] for row in halves)


def test_the_record_is_that_of_its_own_p(modules: tuple[Any, Any]) -> None:
    # p is kept to four digits, so a prompt within 1e-4 of a threshold may fall to its other side
    own = {(row["suite"], row["tail"]): row for row in RECORD["rows"] if row["calibrated_on"] == "halves"}
    for row in modules[0].rates_at(RECORD["p"], [0.1] * 40, Fraction(1, 10)):
        if row["calibrated_on"] == "halves":
            kept = own[row["suite"], row["tail"]]
            assert kept["promised"] == 0.1
            assert abs(row["value"] - kept["value"]) * row["n"] <= 2, row["suite"]


CHECKS = json.loads((BENCHMARKS / "results" / "gate_check.json").read_text(encoding="utf-8"))["sides"]


@pytest.fixture(scope="module")
def gate_check() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        return import_module("gate_check")


def test_weights_are_rounded_by_the_largest_of_a_row(gate_check: Any) -> None:
    # 4 bits have ±7: the rows' scales are 1 and .5 / 7
    weights = {"a_proj.weight": torch.tensor([[7.0, -3.4, 0.6], [0.5, 0.0, -0.24]]), "norm.weight": torch.ones(1)}
    gate_check.rounded_to(4)(weights, {})
    expected = torch.tensor([[7.0, -3.0, 1.0], [0.5, 0.0, -3 / 14]])
    assert torch.allclose(weights["a_proj.weight"], expected)
    assert weights["norm.weight"].tolist() == [1]


def test_int8_keeps_what_it_quantizes(gate_check: Any) -> None:
    weight = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    config: dict[str, Any] = {}
    weights = {"a_proj.weight": weight.clone()}
    gate_check.in_int8(weights, config)
    assert weights["a_proj.weight"].dtype == torch.int8
    back = weights["a_proj.weight"].float() * weights["a_proj.weight_scale"]
    assert (back - weight).abs().max() <= weights["a_proj.weight_scale"].max() / 2 + 1e-6
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"


def test_every_verdict_follows_from_its_intervals() -> None:
    for side, report in CHECKS.items():
        findings = Findings(*(Interval(**report[key]) for key in ("ranking", "hits", "wrong_refusals")))
        assert verdict_of(findings, report["promised"]) == report["verdict"], side
    assert {report["verdict"] for report in CHECKS.values()} == set(EXIT_CODES)
