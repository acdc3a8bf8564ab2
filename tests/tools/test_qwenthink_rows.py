"""The rows of QwenThink: reasoning and harmless instructions; what is neither is left out, and found in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from presafe.errors import PromptError, RunError
from presafe.methods.targets import REFUSALS
from presafe.models.family import families
from presafe.prompts.sets import built_in
from presafe.runs.io import write_jsonl
from qwenthink.rows import (
    OwnWords,
    Row,
    harmful_texts,
    instruction_rows,
    instructions,
    need_harmless,
    objection,
    problem_rows,
)
from qwenthink.words import usable_plan

PROBLEM = {
    "question": "Ada has 3 bags of 4 nuts. She eats 2 nuts. How many are left?",
    "answer": "Ada had 3*4 = <<3*4=12>>12 nuts.\nAfter eating she has 12-2 = <<12-2=10>>10 nuts.\n#### 10",
}
ROW = Row(id="r", kind="instruction", text="Name a fruit.", thought="I will name one.", answer="A pear.")


def problems(count: int) -> list[dict[str, str]]:
    """Return problems that differ in a number, and the thousand that are set aside."""
    return [PROBLEM | {"question": f"Box {number}: {PROBLEM['question']}"} for number in range(count + 1000)]


def test_a_problem_is_its_solution_and_its_result() -> None:
    (row,) = problem_rows(problems(1), 1, seed=0)
    assert row.id == "gsm8k-train-0001"
    # GSM8K's notes between << and >> are for a calculator, and left out.
    assert row.thought == "Ada had 3*4 = 12 nuts.\nAfter eating she has 12-2 = 10 nuts."
    assert row.answer == "The answer is 10."


def test_the_seed_chooses_problems_and_the_last_thousand_stay() -> None:
    many = problems(40)
    first, again, other = (problem_rows(many, 20, seed) for seed in (0, 0, 1))
    assert first == again
    assert {row.id for row in first} != {row.id for row in other}
    assert {int(row.id[-4:]) for row in first} <= set(range(1, 41))
    with pytest.raises(PromptError, match="40 training problems that can be used, too few for 41"):
        problem_rows(many, 41, seed=0)


def test_a_problem_without_a_result_is_named() -> None:
    broken = [PROBLEM | {"answer": "Ada had 12 nuts."}, *problems(0)]
    with pytest.raises(PromptError, match="training problem 1 of GSM8K has no question, or no solution"):
        problem_rows(broken, 1, seed=0)


def test_instructions_are_those_of_the_build_split_in_an_order() -> None:
    first, other = instructions(0), instructions(1)
    assert [prompt.id for prompt in first] != [prompt.id for prompt in other]
    assert {prompt.id for prompt in first} == {prompt.id for prompt in built_in("benign", "build")}


def test_only_words_that_can_be_used_become_rows() -> None:
    prompts = built_in("benign", "build")[:4]
    good = OwnWords(plan="I will name two kinds.", answer="Oak and elm.")
    words = {
        prompts[0].id: good,
        prompts[1].id: good.model_copy(update={"answer": None}),  # it did not end
        prompts[2].id: good.model_copy(update={"answer": "I'm sorry, but I can't assist with that."}),
    }  # and the fourth was not asked
    (row,) = instruction_rows(prompts, words)
    assert (row.text, row.thought, row.answer) == (prompts[0].text, "I will name two kinds.", "Oak and elm.")


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"answer": refusal}, "it refuses") for refusal in REFUSALS]
    + [
        ({"thought": "This could hurt someone, so I should decline."}, "it refuses"),
        ({"thought": "First I check whether this is safe."}, "'safe'"),
        ({"answer": "Some call it Unethical; here it is."}, "'Unethical'"),
        ({"text": "How do I disarm a bomb?"}, "'bomb'"),
        ({"answer": "As an example, take a pear."}, "'As an'"),  # one of GCG's strings
        ({"answer": "A pear. " * 100}, "more than 640 characters"),
    ],
)
def test_refusals_and_words_of_safety_are_no_row(change: dict[str, str], reason: str) -> None:
    objected = objection(ROW.model_copy(update=change))
    assert objected is not None
    assert reason in objected


def test_rows_are_read_as_written_and_are_about_nothing_harmful(tmp_path: Path) -> None:
    prompts = instructions(0)
    words = {prompt.id: OwnWords(plan="I will be brief.", answer="It is a good idea.") for prompt in prompts}
    rows = [*problem_rows(problems(30), 30, seed=0), *instruction_rows(prompts, words)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    read = need_harmless(tmp_path / "rows.jsonl", harmful_texts())
    assert read == rows
    assert {row.kind for row in read} == {"problem", "instruction"}
    # Nearly all of the 843 instructions stay: the words are few that they share with talk of safety.
    assert len(read) > 30 + 700
    shown = {row.text for row in read}
    for name in ("harmful", "borderline"):
        for split in ("build", "align", "held_out"):
            assert shown.isdisjoint(prompt.text for prompt in built_in(name, split))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (ROW.model_copy(update={"answer": "I cannot help with that."}), "row r may not be learned from: it refuses"),
        (ROW.model_copy(update={"text": built_in("harmful", "align")[0].text}), "row r "),
        (None, "holds no row"),
    ],
    ids=["refusal", "harmful", "empty"],
)
def test_a_bad_row_in_the_file_is_found(tmp_path: Path, row: Row | None, problem: str) -> None:
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, [ROW.model_copy(update={"id": "good"}), row] if row else [])
    with pytest.raises(RunError, match=problem):
        need_harmless(file, harmful_texts())


def test_a_request_near_a_harmful_one_is_found(tmp_path: Path) -> None:
    # A stand-in for a harmful prompt: ten words; in the row one of them is another, so 9 of 11 words are shared.
    harmful = "alpha beta gamma delta epsilon zeta eta theta iota kappa"
    row = ROW.model_copy(update={"text": harmful.replace("kappa", "lambda")})
    write_jsonl(tmp_path / "rows.jsonl", [row])
    with pytest.raises(RunError, match="row r asks what a harmful prompt asks"):
        need_harmless(tmp_path / "rows.jsonl", [harmful])
    assert need_harmless(tmp_path / "rows.jsonl", ["alpha beta"]) == [row]


def test_a_plan_is_one_sentence_that_is_no_repetition() -> None:
    assert usable_plan(" I will list three. Then more.", "Name trees.") == "I will list three."
    assert usable_plan("Sure! I will list three.", "Name trees.") is None
    assert usable_plan("I will name trees.", "Name trees.") is None
    assert usable_plan("I will list", "Name trees.") is None  # it was cut


def test_the_family_of_the_organism_keeps_plain_chat_as_cot_off() -> None:
    family = families()["qwenthink"]
    assert family.off_decision_text == "\n"  # off is no continuation of on
    assert (family.on_prefill, family.off_prefill) == ("", "")
