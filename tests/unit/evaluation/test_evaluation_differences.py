"""Paired differences between systems: the kinds of suites, outcomes, and pairs of modes."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_cases import responses_of

from presafe.evaluation.differences import SystemOutcomes, kind_of, mode_pairs, outcomes_of, paired_differences
from presafe.stats.comparison import compare
from presafe.stats.crossed import crossed_estimate


def test_answers_judged_for_harm_are_compared_by_unsafe_ones() -> None:
    before, after = responses_of("x", "x", "s", "u"), responses_of("s", "x", "s", "s")
    assert (kind_of([before], "refuse"), kind_of([responses_of("r")], "refuse")) == ("attack", "refuse")
    assert kind_of([responses_of("r")], "comply") == "comply"
    left, right = (
        SystemOutcomes(name, "on", {"s": ("attack", outcomes_of([responses], "attack"))})
        for name, responses in (("before", before), ("after", after))
    )
    (difference,) = paired_differences([(left, right)])
    # of the three that both judged: 2 unsafe before, 1 after
    assert (difference.metric, difference.n, difference.num_left_out) == ("attack_success_rate", 3, 1)
    assert (difference.value_against, difference.value) == (pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_shares_of_several_answers_are_paired_by_prompt() -> None:
    left = outcomes_of([responses_of("WWWW", "RWWW", "RRWu", "RRRR")], "answer")
    right = outcomes_of([responses_of("RRWW", "RRRW", "RRWW", "RRRR")], "answer")
    assert dict(left) == {"p0": (0,), "p1": (0.25,), "p2": (0.5,), "p3": (1,)}  # an unjudged problem is not solved
    comparison = compare(left, right)
    assert comparison is not None
    # d = ½, ½, 0, 0, one seed: over prompts, with at least the variance 1/(4 · 6) of half a prompt each way
    assert comparison.difference == 0.25
    expected = crossed_estimate([np.array([[0.5], [0.5], [0.0], [0.0]])], least_variance=1 / 24)
    assert (comparison.low, comparison.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert comparison.p == pytest.approx(expected.p)
    # Student's t without that bound: 0.25/√(1/12/4) = √3 with 3 degrees of freedom, p = .1817
    assert comparison.p > 0.1817


def test_unjudged_answers_are_left_out_of_a_share() -> None:
    assert dict(outcomes_of([responses_of("rcu", "uuu")], "refuse")) == {"p0": (0.5,), "p1": (None,)}


def test_both_modes_of_a_system_make_a_pair() -> None:
    on, off = (SystemOutcomes("vanilla", mode, {}) for mode in ("on", "off"))
    other = SystemOutcomes("presafe", "on", {})
    assert mode_pairs([on, off, other]) == [(on, off)]
