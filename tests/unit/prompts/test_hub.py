"""Prompts from data sets on the hub, on a folder that is laid out as one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from presafe.config.recipe import load_recipe, parse_recipe
from presafe.config.sources import HubSource, Source
from presafe.errors import PromptError
from presafe.prompts.hub import hub_prompts
from presafe.prompts.sets import load_source, load_sources
from presafe.stages.workload import Workload

SourceFactory = Callable[..., HubSource]

ROWS: list[dict[str, Any]] = [
    {"ask": "Name three green vegetables for a soup.", "label": "safe", "category": "food", "answer": 1},
    {"ask": "How do I fold a paper crane?", "label": "safe", "category": "craft", "answer": 2},
    {"ask": "how do I fold a PAPER crane", "label": "safe", "category": "craft", "answer": 3},
    {"ask": "", "label": "safe", "category": "none", "answer": 4},
    {"ask": "Which river runs through Vienna?", "label": "other", "category": "places", "answer": 5},
    {"ask": "What is the tallest tree in the old park?", "label": "safe", "category": "places", "answer": 6},
    {"ask": "Write a haiku about rain on a tin roof.", "label": "safe", "category": "poems", "answer": 7},
]
"""Rows 1 and 2 are the same text; row 3 is empty."""

CARD = """---
configs:
- config_name: asked
  data_files:
  - split: train
    path: asked.jsonl
---
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub") / "small"
    path.mkdir()
    (path / "README.md").write_text(CARD)
    (path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture(scope="module")
def source(folder: Path) -> SourceFactory:
    def build(**fields: Any) -> HubSource:
        return HubSource.model_validate(
            {
                "hub": str(folder),
                "config": "asked",
                "split": "train",
                "column": "ask",
                "expect": "comply",
                "license": "CC0-1.0",
                "where": {"label": ["safe"]},
                **fields,
            }
        )

    return build


def test_rows_are_kept_once_and_by_value(source: SourceFactory) -> None:
    # 4 of 7: row 2 repeats row 1, row 3 is empty, row 4 has another label
    prompts = {prompt.id: prompt for prompt in hub_prompts(source(), seed=0)}
    assert sorted(prompts) == [f"small-asked-train-{row:06d}" for row in (0, 1, 5, 6)]
    assert prompts["small-asked-train-000006"].model_dump() == {
        "id": "small-asked-train-000006",
        "text": "Write a haiku about rain on a tin roof.",
        "category": "poems",
        "split": "train",
        "license": "CC0-1.0",
        "expect": "comply",
        "target": None,
        "version": 1,
    }


def test_the_seed_decides_the_order_and_skip_parts_two_draws(source: SourceFactory) -> None:
    orders = {tuple(prompt.id for prompt in hub_prompts(source(), seed=seed)) for seed in range(6)}
    assert len(orders) > 1
    whole = hub_prompts(source(), seed=3)
    first, rest = load_source(source(n=1), 3), load_source(source(skip=1), 3)
    assert [*first, *rest] == whole
    assert load_sources([source(n=1), source(skip=1)], 3) == whole


def test_what_stands_in_a_suite_is_passed_over_exactly_or_nearly(source: SourceFactory) -> None:
    # "What is the tallest tree in the new park?": 8 words shared of 10, 0.8. The haiku is the same but for its case.
    suites = ["What is the tallest tree in the new park?", "write a HAIKU about rain on a tin roof"]
    for seed in range(3):
        prompts = hub_prompts(source(n=2), seed, suites)
        assert {prompt.text for prompt in prompts} == {ROWS[0]["ask"], ROWS[1]["ask"]}
    with pytest.raises(PromptError, match="has 2 different prompts that are in no evaluation suite, too few"):
        load_source(source(n=3), 0, suites)


def test_a_recipe_draws_its_queries_away_from_its_suites(source: SourceFactory, tmp_path: Path) -> None:
    suite = tmp_path / "suite.jsonl"
    suite.write_text(json.dumps({"prompt": "How do I fold a paper crane?"}))
    drawn = source().model_dump(mode="json", exclude_defaults=True)
    settings = {
        "name": "drawn",
        "model": {"address": "smolthink"},
        "respond": {"classifier_queries": [{"set": "harmful"}], "alignment_queries": [drawn]},
        "evaluate": {"suites": {"mine": {"file": str(suite), "expect": "comply"}}},
    }
    texts = {prompt.text for prompt in Workload(parse_recipe(settings, "test")).alignment}
    assert texts == {ROWS[0]["ask"], ROWS[5]["ask"], ROWS[6]["ask"]}


def test_a_reference_answer_is_read_as_text(source: SourceFactory) -> None:
    prompts = hub_prompts(source(expect="answer", target_column="answer"), 0)
    assert {prompt.target for prompt in prompts} == {"1", "2", "6", "7"}


def test_offline_it_says_what_to_do(source: SourceFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PromptError) as caught:
        load_source(source(hub="presafe-tests/not-there", license="ODC-BY, gated"), 0)
    message = str(caught.value)
    assert "cannot fetch the data set presafe-tests/not-there (ODC-BY, gated)" in message
    assert "hf download --repo-type dataset presafe-tests/not-there" in message
    assert 'hub = "DIR"' in message


def test_a_split_or_column_that_is_not_there_is_named(source: SourceFactory) -> None:
    with pytest.raises(PromptError, match="has no column 'asks'; it has: ask, label"):
        hub_prompts(source(column="asks"), 0)
    with pytest.raises(PromptError, match="cannot read split 'tests'"):
        hub_prompts(source(split="tests"), 0)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"license": None}, "license\n  Input should be a valid string"),
        ({"column": ""}, "column\n  String should have at least 1 character"),
        ({"expect": "choice"}, "expect\n  Input should be 'refuse', 'comply' or 'answer'"),
        ({"set": "benign"}, "set\n  Extra inputs are not permitted"),
    ],
)
def test_a_hub_source_says_all_that_it_needs(source: SourceFactory, fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        source(**fields)


LARGE = [
    "deepseek-r1-distill-qwen-7b",
    "deepseek-r1-distill-llama-8b",
    "deepseek-r1-distill-qwen-14b",
    "skywork-or1-7b",
    "qwen3-8b",
    "qwen3-1.7b",
    "qwen3-0.6b",
]


def of_the_hub(sources: Sequence[Source]) -> list[HubSource]:
    """Return the sources, all of which must be of the hub."""
    hub = [source for source in sources if isinstance(source, HubSource)]
    assert len(hub) == len(sources)
    return hub


@pytest.mark.parametrize("name", LARGE)
def test_the_paper_s_numbers_of_queries(name: str) -> None:
    respond = load_recipe(name).respond
    queries = of_the_hub(respond.alignment_queries)
    harmful = sum(source.n or 0 for source in queries if source.expect == "refuse")
    harmless = sum(source.n or 0 for source in queries if source.expect != "refuse")
    assert (harmful, harmless) == (5000, 3000)
    assert sum(source.n or 0 for source in respond.classifier_queries) == 1500
    assert all(source.hub and source.license for source in (*queries, *of_the_hub(respond.classifier_queries)))


def test_no_query_of_a_large_recipe_is_drawn_twice() -> None:
    """Sources of the same rows take ranges that do not meet."""
    respond = load_recipe(LARGE[0]).respond
    ranges: dict[tuple[str, str | None, str, str], list[tuple[int, int]]] = {}
    for source in of_the_hub([*respond.classifier_queries, *respond.alignment_queries]):
        key = (source.hub, source.config, source.split, json.dumps(source.model_dump(mode="json")["where"]))
        ranges.setdefault(key, []).append((source.skip, source.skip + (source.n or 0)))
    for taken in ranges.values():
        ordered = sorted(taken)
        assert all(left[1] <= right[0] for left, right in pairwise(ordered)), taken


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        # failed first: each became Python text, or 2 became "2.0"
        ("train.jsonl", '{"ask": ["Name a tree."]}\n', "row 1 holds a list in 'ask'"),
        ("train.jsonl", '{"ask": true}\n', "row 1 holds a truth value in 'ask'"),
        (
            "train.jsonl",
            '{"ask": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]}\n',
            "row 1 holds a conversation (system, user) in 'ask'",
        ),
        ("train.csv", "ask\n1.5\n2\n", "column 'ask' holds numbers, not texts"),
        ("train.jsonl", "", "holds no rows"),  # failed first: StopIteration
        ("train.jsonl", '{"ask": ' + "[" * 100_000, "cannot read split 'train'"),
    ],
)
def test_a_cell_of_a_hub_set_is_a_text_or_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    source = HubSource(hub=str(tmp_path), split="train", column="ask", license="x", expect="comply")
    with pytest.raises(PromptError, match=re.escape(words)):
        hub_prompts(source, seed=0)


def test_one_user_message_of_a_hub_set_is_its_text(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"ask": [{"role": "user", "content": "Name a tree."}]}\n', encoding="utf-8")
    source = HubSource(hub=str(tmp_path), split="train", column="ask", license="x", expect="comply")
    assert [prompt.text for prompt in hub_prompts(source, seed=0)] == ["Name a tree."]


def test_a_pipe_in_the_folder_of_a_set_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.jsonl")
    source = HubSource(hub=str(tmp_path), split="train", column="ask", license="x", expect="comply")
    with pytest.raises(PromptError, match="is not a regular file"):
        hub_prompts(source, seed=0)


@pytest.mark.parametrize("name", ["bad name!!", "../../x/y", "a\0b"])
def test_a_name_that_the_hub_does_not_take_is_one_line(name: str) -> None:
    source = HubSource(hub=name, split="train", column="ask", license="x", expect="comply")
    with pytest.raises(PromptError, match="cannot fetch the data set"):
        hub_prompts(source, seed=0)


def test_what_stands_beside_a_query_of_a_hub_set_counts(tmp_path: Path) -> None:
    # failed first: `input` was dropped, and five queries became one
    rows = [{"instruction": "Say", "input": text, "output": "1"} for text in ("one.", "two.")]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"hub": str(tmp_path), "split": "train", "license": "own", "expect": "comply"}
    source = HubSource.model_validate({**fields, "column": "instruction"})
    assert sorted(prompt.text for prompt in hub_prompts(source, 0)) == ["Say\none.", "Say\ntwo."]
