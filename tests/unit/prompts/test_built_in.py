"""The project's own prompt sets: how large, how varied, whose, and that no split knows another."""

from __future__ import annotations

from itertools import combinations

import pytest

from presafe.errors import PromptError
from presafe.prompts.overlap import fold, overlaps
from presafe.prompts.sets import BUILT_IN, built_in
from presafe.records import Prompt

SPLITS = ("build", "align", "held_out")
EXPECTED = {"harmful": "refuse", "benign": "comply", "borderline": "comply"}


def whole(name: str) -> list[Prompt]:
    return [prompt for split in SPLITS for prompt in built_in(name, split)]


@pytest.mark.parametrize(
    ("name", "least", "least_categories"), [("harmful", 300, 10), ("benign", 600, 10), ("borderline", 100, 3)]
)
def test_a_set_is_large_and_varied(name: str, least: int, least_categories: int) -> None:
    prompts = whole(name)
    assert len(prompts) >= least
    assert len({prompt.category for prompt in prompts}) >= least_categories


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_prompt_is_one_line_with_license_and_what_is_expected(name: str) -> None:
    for prompt in whole(name):
        assert prompt.text == prompt.text.strip(), prompt.id
        assert len(prompt.text.splitlines()) == 1, prompt.id
        assert prompt.license == "Apache-2.0", prompt.id
        assert prompt.expect == EXPECTED[name], prompt.id
        assert prompt.target is None, prompt.id


def test_ids_and_texts_are_unique_over_all_sets() -> None:
    prompts = [prompt for name in BUILT_IN for prompt in whole(name)]
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    assert len({fold(prompt.text) for prompt in prompts}) == len(prompts)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_split_holds_enough_to_measure_with(name: str) -> None:
    # A rate over 50 prompts is known to ±14 points at worst (1.96 · √(0.25 / 50) = 0.139).
    assert min(len(built_in(name, split)) for split in SPLITS) >= 50


@pytest.mark.parametrize(("one", "other"), list(combinations(SPLITS, 2)))
def test_splits_share_no_prompt_exactly_or_nearly(one: str, other: str) -> None:
    # All sets together: a harmful prompt of one split must not stand among the look-alikes of another either.
    left = [prompt for name in BUILT_IN for prompt in built_in(name, one)]
    right = [prompt for name in BUILT_IN for prompt in built_in(name, other)]
    shared = overlaps([prompt.text for prompt in left], [prompt.text for prompt in right], near=0.7)
    assert [(left[i].id, right[j].id) for i, j in shared] == []


def test_unknown_set_or_split_lists_the_known_ones() -> None:
    with pytest.raises(PromptError, match=r"'toxic'.*harmful, benign, borderline"):
        built_in("toxic", "build")
    with pytest.raises(PromptError, match=r"'harmful' has no split 'test'.*build, align, held_out"):
        built_in("harmful", "test")
