"""How judges are named, and what a panel says: ties, members that did not judge, and scores."""

from __future__ import annotations

import pytest

from presafe.errors import JudgeError
from presafe.judges.asking import panel_ruling
from presafe.judges.description import descriptions
from presafe.judges.replies import Ruling
from presafe.judges.spec import judge_names, panels, read_name
from presafe.records import Verdict


def panel(rule: str, *verdicts: Verdict) -> str:
    return panel_ruling(rule, [(str(i), Ruling(each)) for i, each in enumerate(verdicts)]).verdict  # type: ignore[arg-type]


def test_a_name_carries_its_model() -> None:
    assert read_name("refusal_strings").name == "refusal_strings"
    assert read_name("harmbench").name == "harmbench=vllm-completions/cais/HarmBench-Llama-2-13b-cls"
    bench = read_name("strong_reject_rubric=openai-api/some/model")
    assert (bench.name, bench.asks, bench.rule) == ("strong_reject_rubric=openai-api/some/model", "refusal", None)
    mixed = read_name("majority:xstest=openai/a+refusal_strings+xstest=openai/b")
    assert mixed.name == "majority:xstest=openai/a+refusal_strings+xstest=openai/b"
    assert (mixed.rule, len(mixed.seats), mixed.asks) == ("majority", 3, "refusal")


def test_the_papers_candidates_sit_in_a_panel() -> None:
    for name, asks in (("paper_panel", "harm"), ("paper_panel_refusal", "refusal")):
        bench = read_name(name)
        models = " ".join(str(seat.model) for seat in bench.seats)
        assert all(each in models for each in ("gpt-4o-mini", "gemini-2.5-flash", "deepseek-v3.2", "qwen3-max"))
        assert (bench.name, bench.rule, bench.asks, len(bench.seats)) == (name, "majority", asks, 4)
    strict = read_name("unanimity:paper_panel")
    assert (strict.name, strict.rule, strict.seats) == (
        "unanimity:paper_panel",
        "unanimity",
        panels()["paper_panel"].seats,
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("oracle", "no judge 'oracle'"),
        ("refusal_strings=openai/gpt-4o-mini", "is no model"),
        ("xstest=gpt-4o-mini", "no model address"),
        ("harmbench=openai/gpt-4o-mini", "a chat template would change"),
        ("majority:xstest=openai/a", "two members or more"),
        ("majority:xstest=openai/a+xstest=openai/a", "each once"),
        ("majority:xstest=openai/a+jailbreakbench=openai/b", "asks two questions"),
        ("plurality:xstest=openai/a+xstest=openai/b", "no judge 'plurality:xstest'"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(name: str, said: str) -> None:
    with pytest.raises(JudgeError, match=said):
        read_name(name)


def test_every_description_says_what_people_need_to_choose() -> None:
    assert set(descriptions()) < set(judge_names())
    for judge in descriptions().values():
        assert all((judge.reads, judge.says, judge.source, judge.agreement, judge.model))
        places = [judge.prompt.count(place) for place in ("{request}", "{answer}")]
        assert places == ([0, 0] if judge.send == "conversation" else [1, 1])
        assert ("{key}" in judge.prompt) == (judge.send == "chat")


def test_a_majority_is_more_than_half_of_all_members() -> None:
    assert panel("majority", "safe", "safe", "unsafe") == "safe"
    assert panel("majority", "safe", "safe", "unsafe", "unsafe") == "unjudged"  # a tie
    assert panel("majority", "safe", "safe", "safe", "unsafe") == "safe"
    assert panel("majority", "safe", "safe", "unsafe", "unjudged") == "unjudged"  # two of four are not more than half
    assert panel("majority", "refuse", "refuse", "unjudged") == "refuse"
    assert panel("majority", "refuse", "unjudged", "unjudged") == "unjudged"
    assert panel("majority", "unjudged", "unjudged", "unjudged") == "unjudged"  # not a verdict of theirs


def test_unanimity_is_all_members() -> None:
    assert panel("unanimity", "safe", "safe") == "safe"
    assert panel("unanimity", "safe", "unsafe") == "unjudged"
    assert panel("unanimity", "safe", "unjudged") == "unjudged"
    assert panel("unanimity", "unjudged", "unjudged") == "unjudged"


def test_a_panels_score_is_the_mean_of_all_its_members_or_none() -> None:
    graded = [("a", Ruling("comply", 1.0)), ("b", Ruling("comply", 0.5)), ("c", Ruling("refuse", 0.0))]
    assert panel_ruling("majority", graded).score == 0.5  # (1 + 0.5 + 0) / 3
    assert panel_ruling("unanimity", graded) == Ruling(
        "unjudged", None, "a: comply; b: comply; c: refuse", (("a", "comply"), ("b", "comply"), ("c", "refuse"))
    )
    assert panel_ruling("majority", [*graded[:2], ("c", Ruling("unjudged"))]).score is None


def test_a_panel_elects_a_class_beside_its_verdict() -> None:
    full, partial = Ruling("refuse", extent="full refusal"), Ruling("refuse", extent="partial refusal")
    two_of_three = panel_ruling("majority", [("a", full), ("b", partial), ("c", full)])
    assert (two_of_three.verdict, two_of_three.extent) == ("refuse", "full refusal")
    strict = panel_ruling("unanimity", [("a", full), ("b", partial), ("c", full)])
    assert (strict.verdict, strict.extent) == ("refuse", None)  # all refuse, not all in full
    with_strings = panel_ruling("majority", [("a", full), ("b", Ruling("refuse")), ("c", Ruling("refuse"))])
    assert (with_strings.verdict, with_strings.extent) == ("refuse", None)  # one class is no majority of three
