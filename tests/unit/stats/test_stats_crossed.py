"""The one rule of inference: against Student's t where it must agree with it, against draws, and its coverage."""

from __future__ import annotations

import coverage_of_rules
import numpy as np
import pytest
from scipy.stats import t

from presafe.stats.auroc import auroc
from presafe.stats.comparison import difference_estimate
from presafe.stats.crossed import auroc_groups, crossed_estimate, fill_gaps


def test_one_seed_is_a_t_test_over_prompts() -> None:
    values = np.array([[0.0], [1.0], [1.0], [0.0], [1.0], [1.0], [1.0], [0.5]])
    estimate = crossed_estimate([values])
    error = float(values.std(ddof=1)) / 8**0.5
    assert estimate.value == pytest.approx(5.5 / 8)
    assert estimate.high - estimate.value == pytest.approx(t.ppf(0.975, 7) * error, rel=1e-5)
    assert estimate.p == pytest.approx(2 * t.sf(5.5 / 8 / error, 7), rel=1e-5)
    assert estimate.detectable == pytest.approx((t.ppf(0.975, 7) + t.ppf(0.8, 7)) * error, rel=1e-5)


def test_seeds_alone_give_a_t_test_over_seeds() -> None:
    # every prompt does what its seed does: no variance over prompts, no residual
    seeds = np.array([0.1, 0.25, 0.4, 0.2])
    estimate = crossed_estimate([np.tile(seeds, (50, 1))])
    error = float(seeds.std(ddof=1)) / 2
    assert estimate.value == pytest.approx(0.2375)
    assert estimate.p == pytest.approx(2 * t.sf(0.2375 / error, 3), rel=1e-5)
    assert estimate.value - estimate.low == pytest.approx(t.ppf(0.975, 3) * error, rel=1e-5)


def test_margin_is_the_quantile_of_its_pivot() -> None:
    generator = np.random.default_rng(0)
    values = 0.1 + generator.normal(0, 0.3, (100, 1)) + generator.normal(0, 0.05, (1, 3))
    values = values + generator.normal(0, 0.5, (100, 3))
    estimate = crossed_estimate([values])
    seeds = values.mean(axis=0).var(ddof=1) / 3
    prompts = values.mean(axis=1).var(ddof=1) / 100
    residuals = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    residual = (residuals**2).sum() / (2 * 99) / 300
    draws = [
        part * freedom / generator.chisquare(freedom, 400_000)
        for part, freedom in ((seeds, 2), (prompts, 99), (residual, 198))
    ]
    variances = np.maximum(draws[0] + draws[1] - draws[2], 0)
    distances = np.abs(generator.normal(size=400_000)) * np.sqrt(variances)
    assert estimate.high - estimate.value == pytest.approx(np.quantile(distances, 0.95), rel=0.01)
    assert estimate.p == pytest.approx((distances >= values.mean()).mean(), abs=0.001)


def test_groups_add_their_means_and_variances() -> None:
    generator = np.random.default_rng(1)
    harmful, harmless = generator.random((40, 1)), generator.random((60, 1))
    together = crossed_estimate([harmful, -harmless])
    assert together.value == pytest.approx(harmful.mean() - harmless.mean())
    # Welch's t test of two means
    parts = [float(group.var(ddof=1)) / len(group) for group in (harmful, harmless)]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 39 + parts[1] ** 2 / 59)
    assert together.high - together.value == pytest.approx(t.ppf(0.975, freedom) * sum(parts) ** 0.5, rel=1e-4)


def test_placements_add_up_to_the_auroc() -> None:
    generator = np.random.default_rng(2)
    positive, negative = generator.normal(1, 1, (30, 3)), generator.normal(0, 1, (40, 3))
    above, below = auroc_groups(positive, negative)
    by_seed = [auroc(list(ups), list(downs)) for ups, downs in zip(positive.T, negative.T, strict=True)]
    assert above.mean(axis=0) == pytest.approx(by_seed)
    assert below.mean(axis=0) == pytest.approx([0, 0, 0])
    assert crossed_estimate([above, below]).value == pytest.approx(np.mean(by_seed))


def test_gaps_are_filled_by_prompt_and_seed() -> None:
    # 1 + prompt + seed: the missing cell is 1 + 2 + 0.5
    table = 1 + np.array([[0.0], [1.0], [2.0]]) + np.array([[0.0, 0.5, 0.25]])
    with_gap = table.copy()
    with_gap[2, 1] = np.nan
    assert fill_gaps(with_gap) == pytest.approx(table)
    with pytest.raises(ValueError, match="every prompt and every seed"):
        fill_gaps(np.array([[1.0, np.nan], [0.0, np.nan]]))


def test_paired_seeds_cancel_what_both_sides_share() -> None:
    generator = np.random.default_rng(3)
    seeds = generator.normal(0, 0.3, (1, 5))
    left = generator.normal(0, 0.1, (50, 5)) + seeds
    right = left + 0.2 + generator.normal(0, 0.1, (50, 5))
    paired = difference_estimate([left], [right], paired_seeds=True)
    apart = difference_estimate([left], [right], paired_seeds=False)
    assert paired.value == pytest.approx(apart.value)
    assert paired.high - paired.low < 0.3 * (apart.high - apart.low)
    assert paired.p < 1e-4 < apart.p


@pytest.mark.parametrize("values", [np.ones((1, 3)), np.array([[1.0, np.nan], [0.0, 1.0]])])
def test_too_few_or_missing_values_are_errors(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"at least two|finite value"):
        crossed_estimate([values])


def test_committed_coverage_is_between_93_and_97() -> None:
    rows = coverage_of_rules.committed()
    assert len(rows) >= 8
    assert all(row.draws >= 4_000 for row in rows)
    inside = [row for row in rows if 0.93 <= row.crossed <= 0.97]
    # the settings outside, both cautious, stand on the page: three seeds, differences almost all between prompts
    assert len(inside) >= 8
    assert all(row.crossed > 0.97 for row in rows if row not in inside)


def test_committed_coverage_is_reproduced() -> None:
    rows = coverage_of_rules.committed()
    for row in rows[:: len(rows) // 3]:
        again = coverage_of_rules.measure(row.setting, draws=300, seed=7)
        for rule in ("crossed", "seeds_only", "seeds_plus_prompts"):
            rate = getattr(row, rule)
            # four standard deviations of 300 draws
            assert abs(getattr(again, rule) - rate) <= 4 * (max(rate * (1 - rate), 0.002) / 300) ** 0.5 + 0.003
