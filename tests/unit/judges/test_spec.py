"""Read names of judges; elect the ruling of a panel: ties, members without a verdict, and scores."""

from __future__ import annotations

import pytest

from presafe.errors import JudgeError
from presafe.judges.description import descriptions
from presafe.judges.model_judge import panel_ruling
from presafe.judges.parsing import Ruling
from presafe.judges.spec import Rule, judge_names, models_here, panels, read_name
from presafe.records import Verdict


def elected(rule: Rule, *verdicts: Verdict) -> str:
    return panel_ruling(rule, [(str(i), Ruling(verdict)) for i, verdict in enumerate(verdicts)]).verdict


def test_name_carries_its_model() -> None:
    assert read_name("refusal_strings").name == "refusal_strings"
    assert read_name("harmbench").name == "harmbench=vllm-completions/cais/HarmBench-Llama-2-13b-cls"
    panel = read_name("strong_reject_rubric=openai-api/some/model")
    assert (panel.name, panel.asks, panel.rule) == ("strong_reject_rubric=openai-api/some/model", "refusal", None)
    mixed = read_name("majority:xstest=openai/a+refusal_strings+xstest=openai/b")
    assert mixed.name == "majority:xstest=openai/a+refusal_strings+xstest=openai/b"
    assert (mixed.rule, len(mixed.specs), mixed.asks) == ("majority", 3, "refusal")


def test_paper_panel_holds_the_candidates_of_the_paper() -> None:
    for panel_name, asks in (("paper_panel", "harm"), ("paper_panel_refusal", "refusal")):
        panel = read_name(panel_name)
        models = " ".join(str(spec.model) for spec in panel.specs)
        assert all(model in models for model in ("gpt-4o-mini", "gemini-2.5-flash", "deepseek-v3.2", "qwen3-max"))
        assert (panel.name, panel.rule, panel.asks, len(panel.specs)) == (panel_name, "majority", asks, 4)
    strict = read_name("unanimity:paper_panel")
    assert (strict.name, strict.rule, strict.specs) == (
        "unanimity:paper_panel",
        "unanimity",
        panels()["paper_panel"].specs,
    )


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("oracle", "no judge 'oracle'"),
        ("refusal_strings=openai/gpt-4o-mini", "takes no model"),
        ("xstest=gpt-4o-mini", "no model address"),
        ("harmbench=openai/gpt-4o-mini", "a chat template would change"),
        ("majority:xstest=openai/a", "two or more members"),
        ("majority:xstest=openai/a+xstest=openai/a", "each once"),
        ("majority:xstest=openai/a+jailbreakbench=openai/b", "judge different things"),
        ("plurality:xstest=openai/a+xstest=openai/b", "no judge 'plurality:xstest'"),
    ],
)
def test_wrong_names_are_errors(name: str, problem: str) -> None:
    with pytest.raises(JudgeError, match=problem):
        read_name(name)


def test_every_description_is_complete() -> None:
    assert set(descriptions()) < set(judge_names())
    for judge in descriptions().values():
        assert all((judge.reads, judge.says, judge.source, judge.agreement, judge.model))
        places = [judge.prompt.count(place) for place in ("{request}", "{answer}")]
        assert places == ([0, 0] if judge.send == "conversation" else [1, 1])
        assert ("{key}" in judge.prompt) == (judge.send == "chat")


def test_majority_is_more_than_half_of_all_members() -> None:
    assert elected("majority", "safe", "safe", "unsafe") == "safe"
    assert elected("majority", "safe", "safe", "unsafe", "unsafe") == "unjudged"  # a tie
    assert elected("majority", "safe", "safe", "safe", "unsafe") == "safe"
    assert elected("majority", "safe", "safe", "unsafe", "unjudged") == "unjudged"  # two of four are not more than half
    assert elected("majority", "refuse", "refuse", "unjudged") == "refuse"
    assert elected("majority", "refuse", "unjudged", "unjudged") == "unjudged"
    assert elected("majority", "unjudged", "unjudged", "unjudged") == "unjudged"  # unjudged is no verdict


def test_unanimity_needs_all_members() -> None:
    assert elected("unanimity", "safe", "safe") == "safe"
    assert elected("unanimity", "safe", "unsafe") == "unjudged"
    assert elected("unanimity", "safe", "unjudged") == "unjudged"
    assert elected("unanimity", "unjudged", "unjudged") == "unjudged"


def test_panel_score_is_the_mean_of_all_members() -> None:
    graded = [("a", Ruling("comply", 1.0)), ("b", Ruling("comply", 0.5)), ("c", Ruling("refuse", 0.0))]
    assert panel_ruling("majority", graded).score == 0.5  # (1 + 0.5 + 0) / 3
    assert panel_ruling("unanimity", graded) == Ruling(
        "unjudged", None, "a: comply; b: comply; c: refuse", (("a", "comply"), ("b", "comply"), ("c", "refuse"))
    )
    assert panel_ruling("majority", [*graded[:2], ("c", Ruling("unjudged"))]).score is None


def test_panel_elects_a_class_beside_its_verdict() -> None:
    full, partial = Ruling("refuse", extent="full refusal"), Ruling("refuse", extent="partial refusal")
    two_of_three = panel_ruling("majority", [("a", full), ("b", partial), ("c", full)])
    assert (two_of_three.verdict, two_of_three.extent) == ("refuse", "full refusal")
    strict = panel_ruling("unanimity", [("a", full), ("b", partial), ("c", full)])
    assert (strict.verdict, strict.extent) == ("refuse", None)  # all refuse, not all in full
    with_strings = panel_ruling("majority", [("a", full), ("b", Ruling("refuse")), ("c", Ruling("refuse"))])
    assert (with_strings.verdict, with_strings.extent) == ("refuse", None)  # one class is no majority of three


def test_models_here_are_those_whose_weights_are_loaded() -> None:
    panel = (
        "majority:xstest=presafe/some/model+jailbreakbench_refusal=hf/a/b+xstest=presafe/http://h:1#c+refusal_strings"
    )
    assert models_here(panel, None, "xstest=presafe/some/model") == ("presafe/some/model", "hf/a/b")
    assert models_here("refusal_strings", None) == models_here("xstest=vllm/some/model", "paper_panel") == ()
