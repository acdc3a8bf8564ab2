"""From answers to rows and to what is compared: every suite with its kind and its judge, every seed on its own."""

from __future__ import annotations

from evaluation_cases import responses_of

from presafe.evaluation.answers import Answers, collect_answers, collect_outcomes, score_answers
from presafe.records import Expect, Prompt


def prompt(name: str, expect: Expect) -> Prompt:
    return Prompt(id=name, text="?", category="c", split="s", license="l", expect=expect)


SUITES = {
    "mine": [prompt("p0", "refuse"), prompt("p1", "refuse")],
    "sums": [prompt("p0", "answer"), prompt("p1", "answer")],
}


def test_suites_have_their_own_kind_and_judge() -> None:
    answers = collect_answers(
        SUITES, {"mine": responses_of("r", "c"), "sums": responses_of("R", "u")}, "gcg_strings", None
    )
    assert {name: (suite.expect, suite.judge) for name, suite in answers.items()} == {
        "mine": ("refuse", "gcg_strings"),
        "sums": ("answer", "math_verify"),
    }
    rows = {(row.suite, row.metric): row for row in score_answers(answers, system="sft", thinking="on", seed=3)}
    assert rows["mine", "refusal_rate"].value == 0.5
    assert rows["sums", "accuracy"].value == 0.5  # the unjudged one is not solved
    assert {(row.system, row.thinking, row.seed) for row in rows.values()} == {("sft", "on", 3)}
    assert rows["sums", "accuracy"].judge == "math_verify"


def test_outcomes_have_an_entry_per_seed_and_one_kind() -> None:
    # The second seed's answers were judged for harm, so that of the first, which has no verdict, is open: not refused.
    seeds = [{"mine": Answers("refuse", responses_of("u", "u"), "j")}]
    seeds += [{"mine": Answers("refuse", responses_of("x", "s"), "j")}]
    outcomes = collect_outcomes("sft", "on", seeds)
    assert (outcomes.system, outcomes.thinking) == ("sft", "on")
    assert outcomes.suites == {"mine": ("attack", {"p0": (None, 1.0), "p1": (None, 0.0)})}
