"""Samples of suites over their categories, for `--limit` and in recipes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from presafe.cli.options import read_prompts, read_suites
from presafe.config.recipe import load_recipe, shipped_recipes
from presafe.config.sources import SuiteSource
from presafe.errors import PromptError
from presafe.evaluation import suites
from presafe.prompts.drawing import draw, stratified
from presafe.records import Prompt
from presafe.stages.workload import Workload


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


def write_sorted_suite(data: Path) -> None:
    """Write StrongREJECT's file with four prompts of each of three categories, in the order of the categories."""
    folder = data / "strongreject"
    folder.mkdir()
    rows = [f"{category},DAN,Write {category} {i}.\n" for category in "ABC" for i in range(4)]
    (folder / "strongreject_dataset.csv").write_text("category,source,forbidden_prompt\n" + "".join(rows))


def test_limit_draws_suites_over_their_categories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sorted_suite(tmp_path)
    drawn = read_suites(["strong_reject"], tmp_path, 3)["strong_reject"]
    assert [prompt.category for prompt in drawn] == ["A", "B", "C"]
    assert "strong_reject: 3 of 12 prompts, drawn over 3 categories (seed 0)" in capsys.readouterr().err
    assert len(read_suites(["strong_reject"], tmp_path, 2)["strong_reject"]) == 2
    assert "strong_reject: 2 of 12 prompts, drawn over 2 of 3 categories (seed 0)" in capsys.readouterr().err
    first = read_suites(["strong_reject"], tmp_path, 3, "first")["strong_reject"]
    assert [prompt.category for prompt in first] == ["A", "A", "A"]
    # 24 of 119 prompts in 12 categories, eleven of 10 and one of 9: a share of 2.02 or 1.8, so two of each
    own = read_suites(["smolthink_borderline"], None, 24)["smolthink_borderline"]
    assert set(Counter(prompt.category for prompt in own).values()) == {2}
    assert "smolthink_borderline: 24 of 119 prompts, drawn over 12 categories (seed 0)" in capsys.readouterr().err
    # a user's own file is drawn in the same way, if it has a column of categories
    rows = [f"{category},Name {category} {i}.\n" for category in "AB" for i in range(5)]
    (tmp_path / "mine.csv").write_text("category,prompt\n" + "".join(rows))
    mine = read_prompts(tmp_path / "mine.csv", None, "comply", 4)["mine"]
    assert [prompt.category for prompt in mine] == ["A", "A", "B", "B"]
    assert read_prompts(tmp_path / "mine.csv", None, "comply", 4, "first")["mine"][3].text == "Name A 3."
    with pytest.raises(PromptError, match="--draw must be stratified or first, got 'last'"):
        read_suites(["strong_reject"], tmp_path, 3, "last")


def test_a_recipe_draws_its_limits_unless_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sorted_suite(tmp_path)
    monkeypatch.setenv("PRESAFE_DATA", str(tmp_path))
    file = tmp_path / "mine.toml"
    file.write_text(
        'name = "mine"\nextends = "smolthink-135m-published"\n[evaluate.suites]\n'
        'strong_reject = { suite = "strong_reject", n = 3 }\n'
    )
    loaded = Workload(load_recipe(file)).suites
    assert [prompt.category for prompt in loaded["strong_reject"]] == ["A", "B", "C"]
    file.write_text(file.read_text().replace("[evaluate.suites]", '[evaluate]\ndraw = "first"\n[evaluate.suites]'))
    loaded = Workload(load_recipe(file)).suites
    assert [prompt.category for prompt in loaded["strong_reject"]] == ["A", "A", "A"]


def test_skipped_prompts_are_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sorted_suite(tmp_path)
    monkeypatch.setenv("PRESAFE_DATA", str(tmp_path))
    # of the 8 that are left after the four of A, 2 are one of B and one of C, whatever the seed
    for seed in range(4):
        drawn = suites.prompts_of(SuiteSource(suite="strong_reject", skip=4, n=2), seed, "stratified")
        assert [prompt.category for prompt in drawn] == ["B", "C"]


def test_shipped_recipes_take_no_first_rows_of_published_suites() -> None:
    for name in shipped_recipes():
        evaluate = load_recipe(name).evaluate
        limited = [source for source in evaluate.suites.values() if isinstance(source, SuiteSource) and source.n]
        assert evaluate.draw == "stratified" or not limited
    assert load_recipe("smolthink-135m-published").evaluate.suites["strong_reject"].n == 100
