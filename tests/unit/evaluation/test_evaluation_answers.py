"""From what a system said to rows and to what is compared: each suite with its kind and its judge, each seed apart."""

from __future__ import annotations

from presafe.evaluation.answers import Answers, answered, answers_to, scores_of
from presafe.records import Expect, Prompt, Response, Verdict


def prompt(name: str, expect: Expect) -> Prompt:
    return Prompt(id=name, text="?", category="c", split="s", licence="l", expect=expect)


def said(*verdicts: Verdict) -> list[Response]:
    blank = {"thinking": "on", "thought": "", "answer": "", "truncated": False, "complete": True, "num_tokens": 1}
    return [Response(prompt_id=f"p{i}", verdict=verdict, **blank) for i, verdict in enumerate(verdicts)]


SUITES = {
    "mine": [prompt("p0", "refuse"), prompt("p1", "refuse")],
    "sums": [prompt("p0", "answer"), prompt("p1", "answer")],
}


def test_every_suite_is_scored_by_its_own_kind_and_judge() -> None:
    answers = answers_to(
        SUITES, {"mine": said("refuse", "comply"), "sums": said("right", "unjudged")}, "gcg_strings", None
    )
    assert {name: (each.expect, each.judge) for name, each in answers.items()} == {
        "mine": ("refuse", "gcg_strings"),
        "sums": ("answer", "math_verify"),
    }
    rows = {(row.suite, row.metric): row for row in scores_of(answers, system="sft", thinking="on", seed=3)}
    assert rows["mine", "refusal_rate"].value == 0.5
    assert rows["sums", "accuracy"].value == 0.5  # the unjudged one is not solved
    assert {(row.system, row.thinking, row.seed) for row in rows.values()} == {("sft", "on", 3)}
    assert rows["sums", "accuracy"].judge == "math_verify"


def test_what_is_compared_has_an_entry_a_seed_and_the_kind_that_any_seed_shows() -> None:
    # The second seed's answers were judged for harm, so that of the first, which has no verdict, is open: not refused.
    seeds = [{"mine": Answers("refuse", said("unjudged", "unjudged"), "j")}]
    seeds += [{"mine": Answers("refuse", said("unsafe", "safe"), "j")}]
    found = answered("sft", "on", seeds)
    assert (found.system, found.thinking) == ("sft", "on")
    assert found.suites == {"mine": ("attack", {"p0": (None, 1.0), "p1": (None, 0.0)})}
