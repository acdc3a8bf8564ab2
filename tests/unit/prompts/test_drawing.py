"""A sample of a suite over its categories."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from presafe.cli.options import read_suites
from presafe.errors import PromptError
from presafe.prompts.drawing import draw, stratified
from presafe.records import Prompt


def prompts_of(**sizes: int) -> list[Prompt]:
    """Return prompts sorted by category, as published files are."""
    return [
        Prompt(id=f"{name}{i}", text="x", category=name, split="s", license="l", expect="refuse")
        for name, size in sizes.items()
        for i in range(size)
    ]


def test_each_category_has_its_share_to_the_nearest_prompt() -> None:
    # 10 of 40: exact shares 5, 3.5 and 1.5. The remainders are equal: the larger category gets the last prompt.
    drawn = stratified(prompts_of(a=20, b=14, c=6), 10)
    assert Counter(prompt.category for prompt in drawn) == {"a": 5, "b": 4, "c": 1}
    order = [prompt.id for prompt in prompts_of(a=20, b=14, c=6)]
    assert [prompt.id for prompt in drawn] == sorted((prompt.id for prompt in drawn), key=order.index)


def test_a_draw_follows_its_seed_and_is_no_prefix() -> None:
    prompts = prompts_of(a=30, b=30)
    assert stratified(prompts, 20, seed=1) == stratified(prompts, 20, seed=1)
    assert stratified(prompts, 20, seed=1) != stratified(prompts, 20, seed=2)
    assert stratified(prompts, 60) == prompts
    assert draw(prompts, 20, "first") == prompts[:20]
    assert draw(prompts, None, "stratified") == prompts
    assert draw(prompts_of(a=9), 3, "stratified") == prompts_of(a=3)  # a single category has no shares


def test_limit_draws_published_suites_over_their_categories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "strongreject"
    folder.mkdir()
    rows = [f"{category},DAN,Write {category} {i}.\n" for category in "ABC" for i in range(4)]
    (folder / "strongreject_dataset.csv").write_text("category,source,forbidden_prompt\n" + "".join(rows))
    drawn = read_suites(["strong_reject"], tmp_path, 3)["strong_reject"]
    assert [prompt.category for prompt in drawn] == ["A", "B", "C"]
    assert "strong_reject: 3 of 12 prompts, drawn over 3 categories (seed 0)" in capsys.readouterr().err
    first = read_suites(["strong_reject"], tmp_path, 3, "first")["strong_reject"]
    assert [prompt.category for prompt in first] == ["A", "A", "A"]
    own = read_suites(["smolthink_borderline"], None, 5)["smolthink_borderline"]
    assert own == read_suites(["smolthink_borderline"], None, None)["smolthink_borderline"][:5]
    with pytest.raises(PromptError, match="--draw must be stratified or first, got 'last'"):
        read_suites(["strong_reject"], tmp_path, 3, "last")
