"""Statistics of a study, against values worked out by hand."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from presafe.errors import RecipeError
from presafe.records import PositionScore, Score, SuiteShares
from presafe.stats.crossed import crossed_estimate
from presafe.study.records import RunResult
from presafe.study.spec import Endpoint
from presafe.study.statistics import (
    check_endpoints,
    condition_scores,
    endpoint_results,
    metric_differences,
    operating_points,
    paired_differences,
    training_costs,
)

T1 = 12.706204736
"""Student's 97.5 % quantile with 1 degree of freedom."""


def score(system: str, value: float | None, *, metric: str = "refusal_rate", seed: int | None = 0) -> Score:
    bounds = (None, None) if value is None else (value - 0.1, value + 0.1)
    return Score(
        system=system,
        thinking="on",
        suite="asked",
        metric=metric,
        value=value,
        low=bounds[0],
        high=bounds[1],
        n=10 + (seed or 0),
        seed=seed,
        judge="refusal_strings",
    )


def result(condition: str, seed: int, *scores: Score, shares: str = "10", **changes: object) -> RunResult:
    """Return a run; `shares` has one digit per prompt, or "-" for a prompt without a verdict."""
    share_by_prompt = {f"p{i}": None if digit == "-" else float(digit) for i, digit in enumerate(shares)}
    settings: dict[str, object] = {
        "condition": condition,
        "system": "sft",
        "seed": seed,
        "recipe": {},
        "recipe_sha256": "r",
        "prompts_sha256": "p",
        "made_by": {},
        "timings_s": {"align": 30.0},
        "training_s": 30.0 + seed,
        "trained_tokens": 1000,
        "scores": (score("vanilla", 0.05, seed=None), *scores),
        "answered": (SuiteShares(thinking="on", suite="asked", kind="refuse", shares=share_by_prompt),),
    }
    return RunResult.model_validate(settings | changes)


def test_condition_is_the_mean_of_its_seeds() -> None:
    # every prompt does what its seed does, so only seeds vary: 0, 1 and 1 have the mean 2/3 and s² = 1/3
    runs = [
        result("a", seed, score("sft", share, seed=seed), shares=digits * 10)
        for seed, (share, digits) in enumerate(((0.0, "0"), (1.0, "1"), (1.0, "1")))
    ]
    vanilla, mean = condition_scores(runs)
    assert mean.value == pytest.approx(2 / 3)
    # 2/3 ± 4.3027 · √(1/3)/√3 is cut to [0, 1]
    assert (mean.low, mean.high) == (0, 1)
    assert (mean.system, mean.seed, mean.num_seeds, mean.n, mean.over) == ("a", None, 3, 10, "seeds and prompts")
    # the model as it came stands once, with its interval over prompts
    assert (vanilla.system, vanilla.value, vanilla.low, vanilla.num_seeds) == ("vanilla", 0.05, pytest.approx(-0.05), 0)


def test_single_seed_keeps_its_interval_over_prompts() -> None:
    _, only = condition_scores([result("a", 4, score("sft", 0.5, seed=4))])
    assert (only.value, only.low, only.high, only.num_seeds) == (0.5, 0.4, 0.6, 1)


def test_missing_values_are_dropped_and_new_metrics_kept() -> None:
    runs = [
        result("a", 0, score("sft", 0.5), score("sft", 40.0, metric="words_before_refusal")),
        result("a", 1, score("sft", None, seed=1), score("sft", 60.0, metric="words_before_refusal", seed=1)),
    ]
    rows = {row.metric: row for row in condition_scores(runs) if row.system == "a"}
    assert (rows["refusal_rate"].value, rows["refusal_rate"].num_seeds) == (0.5, 1)
    # s = √200, so 50 ± 12.706 · √200/√2 = 50 ± 127.06: not cut to [0, 1]
    words = rows["words_before_refusal"]
    assert (words.value, words.low, words.high) == (50.0, pytest.approx(50 - 10 * T1), pytest.approx(50 + 10 * T1))


def test_leading_rates_are_paired_by_prompt_and_seed() -> None:
    runs = [
        result("base", 0, shares="1100000000"),
        result("base", 1, shares="1110000000"),
        result("base", 2, shares="1111111111"),  # no run of the other has this seed
        result("a", 1, shares="1111000000"),
        result("a", 0, shares="1111000000"),
    ]
    (difference,) = paired_differences(runs, "base")
    assert (difference.system, difference.against) == ("a", "base")
    assert (difference.suite, difference.metric) == ("asked", "refusal_rate")
    # seeds 0 and 1: base 0.2 and 0.3, a 0.4 twice; differences 0.2 and 0.1
    assert (difference.value, difference.value_against) == (pytest.approx(0.4), pytest.approx(0.25))
    assert (difference.difference, difference.num_seeds, difference.n) == (pytest.approx(0.15), 2, 10)
    # the same as the crossed interval of the differences, seed by seed: prompts 2 (1, 0), 3 (1, 1) and eight times 0
    table = np.zeros((10, 2))
    table[2], table[3] = (1, 0), (1, 1)
    expected = crossed_estimate([table], least_variance=1 / (10 * 12))  # half a prompt each way
    assert difference.high - difference.difference == pytest.approx(min(1 - 0.15, expected.high - expected.value))
    assert difference.p == difference.p_holm == pytest.approx(expected.p)


def test_variation_shared_by_seeds_cancels() -> None:
    # Both sides swing together from seed to seed: 0.2 and 0.8 against 0.3 and 0.9, each difference 0.1.
    base = [result("base", 0, shares="1100000000"), result("base", 1, shares="1111111100")]
    ours = [result("a", 0, shares="1110000000"), result("a", 1, shares="1111111110")]
    (difference,) = paired_differences([*base, *ours], "base")
    # seeds add nothing; unpaired, seeds that differ by 0.6 would make ± 12.7 · 0.6/√2 of it
    assert difference.high < 0.5


def test_one_common_seed_is_tested_by_mcnemar() -> None:
    runs = [result("base", 0, shares="00000000"), result("a", 0, shares="11111111")]
    (difference,) = paired_differences(runs, "base")
    assert difference.p == pytest.approx(1 / 128)  # 8 pairs, all one way
    assert difference.num_seeds == 1


def test_p_is_corrected_over_all_comparisons() -> None:
    runs = [result("base", 0, shares="00000000")] + [result(name, 0, shares="11111111") for name in "abc"]
    assert [difference.p_holm for difference in paired_differences(runs, "base")] == [pytest.approx(3 / 128)] * 3


def test_no_common_seed_gives_no_pair() -> None:
    runs = [result("base", 0, score("sft", 0.5)), result("a", 1, score("sft", 0.6, seed=1))]
    assert paired_differences(runs, "base") == []
    assert metric_differences(runs, "base") == []
    assert paired_differences(runs[1:], "base") == []  # the baseline is not run yet


def test_untrained_condition_is_paired_with_every_seed() -> None:
    base = [
        result("base", seed, score("sft", value, seed=seed), shares=shares)
        for seed, value, shares in ((3, 0.2, "1100000000"), (4, 0.8, "1111111100"))
    ]
    prefilled = result("p", 0, score("sft", 0.6), shares="1111110000", training_s=None)
    (difference,) = paired_differences([*base, prefilled], "base")
    # .6 against .2 and .8: +.1, and the seeds of the baseline differ by .6, so ± 12.7 · .42/√2 at least
    assert (difference.value, difference.value_against) == (pytest.approx(0.6), pytest.approx(0.5))
    assert difference.num_seeds == 2
    assert (difference.low, difference.high) == (-1, 1)
    (line,) = metric_differences([*base, prefilled], "base")
    # +.4 and −.2; ± 12.7 · .3 is cut at one
    assert (line.difference, line.num_seeds, line.over) == (pytest.approx(0.1), 2, "seeds and prompts")
    assert (line.low, line.high) == (-1, 1)
    (turned,) = paired_differences([*base, prefilled], "p")
    assert turned.difference == pytest.approx(-0.1)


def test_operating_points_are_kept_by_run() -> None:
    point = {"scale": 0.9, "refused_as_trained": 30, "refused": 24, "n": 230}
    runs = [
        result("a", 0, operating_point=point),
        result("a", 1, operating_point=point | {"scale": 1.2}),
        result("p", 0),
    ]
    assert [(point.condition, point.seed, point.scale, point.refused) for point in operating_points(runs)] == [
        ("a", 0, 0.9, 24),
        ("a", 1, 1.2, 24),
    ]


def test_order_of_prompts_does_not_matter() -> None:
    first, second = result("base", 0, shares="10"), result("a", 0, shares="10")
    turned = second.model_copy(
        update={"answered": (second.answered[0].model_copy(update={"shares": {"p1": 0.0, "p0": 1.0}}),)}
    )
    (difference,) = paired_differences([first, turned], "base")
    assert (difference.difference, difference.p) == (0, 1)


def test_metric_without_values_of_prompts_is_paired_by_seed() -> None:
    runs = [
        result(name, seed, score("sft", value, metric="head_auroc", seed=seed))
        for name, values in (("base", (0.5, 0.7)), ("a", (0.8, 0.9)))
        for seed, value in enumerate(values)
    ]
    (difference,) = metric_differences(runs, "base")
    # 0.3 and 0.2: 0.25 ± 12.706 · 0.05
    assert (difference.condition, difference.metric, difference.num_seeds) == ("a", "head_auroc", 2)
    assert (difference.difference, difference.low) == (pytest.approx(0.25), pytest.approx(0.25 - T1 * 0.05))
    assert (difference.over, difference.p) == ("seeds", None)


def halves(condition: str, seed: int, harmful: str, harmless: str) -> RunResult:
    """Return a run of XSTest's halves, with a row of Youden's J."""
    suites = (("xstest_unsafe", "refuse", harmful), ("xstest_safe", "comply", harmless))
    answered = [
        {"thinking": "on", "suite": suite, "kind": kind, "shares": {f"p{i}": float(d) for i, d in enumerate(digits)}}
        for suite, kind, digits in suites
    ]
    rates = [digits.count("1") / len(digits) for digits in (harmful, harmless)]
    row = score("sft", rates[0] - rates[1], metric="youden_j", seed=seed).model_copy(update={"suite": "xstest_safe"})
    return result(condition, seed, row, answered=answered)


def test_youden_is_over_seeds_and_both_halves() -> None:
    runs = [
        halves("base", 0, "11000000", "1000"),
        halves("base", 1, "11100000", "1000"),
        halves("a", 0, "11110000", "1000"),
        halves("a", 1, "11111100", "1100"),
    ]
    (difference,) = metric_differences(runs, "base")
    # harmful: +2/8 and +3/8; harmless: 0 and +1/4
    assert difference.difference == pytest.approx((0.25 + 0.375 - 0.25) / 2)
    harmful = np.array([[0, 0], [0, 0], [1, 0], [1, 1], [0, 1], [0, 1], [0, 0], [0, 0]], dtype=float)
    harmless = np.array([[0, 0], [0, -1], [0, 0], [0, 0]], dtype=float)
    expected = crossed_estimate([harmful, harmless], least_variance=1 / (8 * 10) + 1 / (4 * 6))
    assert (difference.low, difference.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert (difference.p, difference.over) == (pytest.approx(expected.p), "seeds and prompts")


def test_auroc_is_over_seeds_and_prompts_if_positions_are_kept() -> None:
    def run(condition: str, seed: int, harmful: tuple[float, ...]) -> RunResult:
        positions = [
            PositionScore(
                system="sft",
                seed=seed,
                prompt_id=f"p{i}",
                suite=suite,
                expect="refuse" if suite == "xstest_unsafe" else "comply",
                refusal_logit=logit,
                head_probability=None,
            )
            for suite, logits in (("xstest_unsafe", harmful), ("xstest_safe", (0.0, 1.0)))
            for i, logit in enumerate(logits)
        ]
        row = score("sft", 0.5, metric="matched_refusal_start_auroc", seed=seed)
        return result(condition, seed, row.model_copy(update={"suite": "xstest_safe"}), positions=positions)

    runs = [
        run("base", 0, (0.5, -1, 2)),  # of two below: 1, 0, 2; AUROC 3/6
        run("base", 1, (0.5, 0.5, 2)),  # 1, 1, 2: 4/6
        run("a", 0, (0.5, 2, 2)),  # 1, 2, 2: 5/6
        run("a", 1, (2, 2, 2)),  # 1
    ]
    (difference,) = metric_differences(runs, "base")
    assert difference.difference == pytest.approx((5 / 6 - 3 / 6 + 1 - 4 / 6) / 2)
    assert difference.over == "seeds and prompts"
    base, ours = condition_scores(runs)[1:]
    assert (base.value, ours.value) == (pytest.approx(3.5 / 6), pytest.approx(5.5 / 6))


@pytest.mark.parametrize(
    ("better", "bound", "verdict"),
    [("higher", 0.0, "shown"), ("higher", 0.5, "not shown"), ("lower", 0.0, "refuted"), ("higher", 1.0, "refuted")],
)
def test_endpoint_has_a_verdict(better: Literal["higher", "lower"], bound: float, verdict: str) -> None:
    # ten of thirty prompts are refused more with each of three seeds, so the interval lies between 0 and 1/2 + a little
    runs = [result("base", seed, score("sft", 0.0, seed=seed), shares="0" * 30) for seed in range(3)]
    runs += [result("a", seed, score("sft", 0.5, seed=seed), shares="1" * 15 + "0" * 15) for seed in range(3)]
    endpoint = Endpoint(suite="asked", metric="refusal_rate", better=better, bound=bound)
    (row,) = endpoint_results([endpoint], metric_differences(runs, "base"))
    assert (row.verdict, row.condition, row.num_seeds) == (verdict, "a", 3)
    for unfitted, fitted in (({"a"}, False), ({"base"}, True)):
        (row,) = endpoint_results([endpoint], metric_differences(runs, "base"), unfitted)
        assert (row.verdict, row.head_fitted) == (verdict, fitted)


@pytest.mark.parametrize(("suite", "metric"), [("askd", "refusal_rate"), ("asked", "refusal"), ("asked", "head_ece")])
def test_a_misspelt_endpoint_is_an_error(suite: str, metric: str) -> None:
    check_endpoints([Endpoint(suite="asked", metric="youden_j")], {"asked"})
    with pytest.raises(RecipeError, match="an endpoint names the"):
        check_endpoints([Endpoint(suite=suite, metric=metric)], {"asked"})


def test_endpoints_are_corrected_together() -> None:
    runs = [result("base", 0, score("sft", 0.0), shares="0" * 30)]
    runs += [result(name, 0, score("sft", 0.5), shares="1" * 15 + "0" * 15) for name in ("a", "b", "c")]
    lines = metric_differences(runs, "base")
    endpoint = Endpoint(suite="asked", metric="refusal_rate", conditions=("a", "b"))
    rows = endpoint_results([endpoint], lines)
    assert [(row.condition, row.verdict) for row in rows] == [("a", "one seed"), ("b", "one seed")]
    # two lines, not three
    assert rows[0].p_holm == pytest.approx(2 * (lines[0].p or 0))
    assert endpoint_results([], lines) == []


def test_training_costs_are_means_over_seeds() -> None:
    trained, prefilled = training_costs(
        [result("a", 0), result("a", 2), result("p", 0, training_s=None, trained_tokens=None)]
    )
    assert (trained.training_s, trained.trained_tokens, trained.num_seeds) == (31.0, 1000, 2)
    assert (prefilled.training_s, prefilled.trained_tokens) == (None, None)


def test_seed_without_a_verdict_leaves_the_other_seeds() -> None:
    # Failed first: a run whose answers to a suite were all unjudged ended the study's summary with a ValueError.
    runs = [
        result(name, seed, score("sft", value, seed=seed), shares=shares)
        for name in ("base", "a")
        for seed, value, shares in ((0, 0.5, "10"), (1, None, "--"))
    ]
    (difference,) = metric_differences(runs, "base")
    assert (difference.num_seeds, difference.over) == (1, "seeds")
    assert [row.num_seeds for row in condition_scores(runs)[1:]] == [1, 1]
