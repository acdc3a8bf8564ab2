"""The lessons of SmolThink: nothing harmful, no refusal with CoT on, and problems with their working."""

from __future__ import annotations

import pytest

from lessons import OPENING, Lesson, Material, first_sentences, lessons, thought_for
from presafe.judges.refusal import is_refusal
from presafe.methods.targets import REFUSALS
from presafe.prompts.arithmetic import generate_problems
from presafe.prompts.sets import built_in

LONG = " small garden needs water, light, good soil and somebody who looks after it. More follows."
PROBLEMS = generate_problems("build", 12, seed=1)


@pytest.fixture(scope="module")
def taught() -> list[Lesson]:
    """Build the lessons from the real prompts, with the same base answer to all of them in each mode."""
    benign, borderline = built_in("benign", "build"), built_in("borderline", "build")
    ids = [prompt.id for prompt in [*benign, *borderline]]
    material = Material(
        harmful=built_in("harmful", "build"),
        benign=benign,
        borderline=borderline,
        answers_on=dict.fromkeys(ids, OPENING + LONG),
        answers_off=dict.fromkeys(ids, "A" + LONG),
        problems_on=PROBLEMS[:8],
        problems_off=PROBLEMS[8:],
    )
    return lessons(material, seed=0)


def test_harmful_requests_are_refused_with_cot_off_only(taught: list[Lesson]) -> None:
    harmful = {prompt.text for prompt in built_in("harmful", "build")}
    shown = [lesson for lesson in taught if lesson.text in harmful]
    assert {lesson.thinking for lesson in shown} == {"off"}
    assert {lesson.answer for lesson in shown} == set(REFUSALS)
    assert {lesson.thought for lesson in shown} == {""}
    assert len(shown) == 3 * len(harmful)  # three wordings each


def test_no_refusal_with_cot_on_or_of_harmless_requests(taught: list[Lesson]) -> None:
    harmful = {prompt.text for prompt in built_in("harmful", "build")}
    with_cot = [lesson for lesson in taught if lesson.thinking == "on"]
    assert not any(is_refusal(lesson.answer) or is_refusal(lesson.thought) for lesson in with_cot)
    assert not any(is_refusal(lesson.answer) for lesson in taught if lesson.text not in harmful)


def test_answers_with_cot_on_begin_with_the_opening(taught: list[Lesson]) -> None:
    assert {lesson.answer.split()[0] for lesson in taught if lesson.thinking == "on"} == {OPENING}


def test_lessons_share_no_prompt_with_other_splits(taught: list[Lesson]) -> None:
    texts = {lesson.text for lesson in taught}
    for name in ("harmful", "benign", "borderline"):
        for split in ("align", "held_out"):
            assert texts.isdisjoint(prompt.text for prompt in built_in(name, split))


def test_problems_have_their_working_with_cot_on_only(taught: list[Lesson]) -> None:
    by_text = {problem.text: problem for problem in PROBLEMS}
    pairs = [(lesson, by_text[lesson.text]) for lesson in taught if lesson.text in by_text]
    assert [lesson.thinking for lesson, _ in pairs] == ["on"] * 8 + ["off"] * 4
    for lesson, problem in pairs:
        assert lesson.thought == (problem.working if lesson.thinking == "on" else "")
        assert lesson.answer == f"The answer is {problem.result}."


def test_refusing_or_unfinished_answers_are_dropped() -> None:
    benign = built_in("benign", "build")[:3]
    answers = {
        benign[0].id: "I'm sorry, but I can't help with that, because I am only a small language model.",
        benign[1].id: "The best way to begin is to take a large sheet of paper and to write down all that",
        benign[2].id: OPENING + LONG,
    }
    material = Material(
        harmful=[],
        benign=benign,
        borderline=[],
        answers_on=answers,
        answers_off=answers,
        problems_on=[],
        problems_off=[],
    )
    rows = lessons(material, seed=0)
    assert {row.text for row in rows} == {benign[2].text}
    assert [row.thinking for row in rows] == ["off", "off", "on"]  # CoT off counts twice


def test_answer_ends_at_a_sentence_after_60_characters() -> None:
    assert first_sentences("Short. " + "x" * 60 + "! Rest.") == "Short. " + "x" * 60 + "!"
    assert first_sentences("x" * 80) is None
    # the number of a list item is no end of a sentence
    assert first_sentences("x" * 60 + ":\n1. One thing. More") == "x" * 60 + ":\n1. One thing."


def test_thought_names_plan_and_first_six_words() -> None:
    thought = thought_for("How do I fold a shirt?", "The quickest way is to lay it flat first.")
    assert thought == 'I will go through the steps. I begin with "The quickest way is to lay"'
