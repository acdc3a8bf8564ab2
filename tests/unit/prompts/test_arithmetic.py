"""Generated problems: deterministic, split by their numbers, and every reference recomputed from the text alone."""

from __future__ import annotations

import re

import pytest

from presafe.errors import PromptError
from presafe.prompts.arithmetic import SPLITS, Problem, arithmetic_prompts, generate_problems, split_of

N = 800
"""Enough that every wording of every kind occurs: the rarest, a story form, is drawn about 1/16 of the time."""

STORIES = (
    (r"has (\d+) \w+ and buys (\d+) bags with (\d+) \w+ each", lambda a, b, c: a + b * c),
    (r"has (\d+) \w+, gets (\d+) more and then gives (\d+) away", lambda a, b, c: a + b - c),
    (r"are (\d+) boxes with (\d+) \w+ in each\. \w+ takes (\d+)", lambda a, b, c: a * b - c),
    (r"costs (\d+) dollars\. \w+ buys (\d+) packs and pays (\d+) dollars", lambda a, b, c: a * b + c),
)
WORDED = (
    (r"^Add (\d+) and (\d+)\.$", lambda a, b: a + b),
    (r"^Subtract (\d+) from (\d+)\.$", lambda a, b: b - a),
    (r"^Take (\d+) away from (\d+)\.$", lambda a, b: b - a),
    (r"^What is (\d+) times (\d+)\?$", lambda a, b: a * b),
    (r"^Multiply (\d+) by (\d+)\.$", lambda a, b: a * b),
)
PLAIN = re.compile(r"^(?:What is |Calculate |Work out )?(\d+(?: [-+*] \d+)+)(?:\?|\.| = \?)$")


def solve(text: str) -> tuple[str, int]:
    """Which reading of the text fits, and the result that follows from it alone."""
    plain = PLAIN.match(text)
    if plain:
        first, *rest = plain[1].split()
        total = int(first)
        for sign, number in zip(rest[::2], rest[1::2], strict=True):  # `*` never stands beside another sign
            total = {"+": total + int(number), "-": total - int(number), "*": total * int(number)}[sign]
        return "plain " + "".join(rest[::2]), total
    for pattern, rule in (*WORDED, *STORIES):
        match = re.search(pattern, text)
        if match:
            return pattern, rule(*map(int, match.groups()))
    raise AssertionError(f"no reading of {text!r}")


def test_the_reader_itself_is_right() -> None:
    assert solve("47 + 36 - 9 = ?")[1] == 74
    assert solve("Take 12 away from 30.")[1] == 18
    assert solve("Mia has 20 pens and buys 3 bags with 4 pens each. How many pens does Mia have now?")[1] == 32
    assert solve("There are 3 boxes with 5 cards in each. Tom takes 4 cards. How many cards remain?")[1] == 11


@pytest.mark.parametrize("split", SPLITS)
def test_every_target_follows_from_the_text(split: str) -> None:
    readings = set()
    for prompt in arithmetic_prompts(split, N, seed=3):
        reading, result = solve(prompt.text)
        readings.add(reading)
        assert prompt.target == str(result), prompt.text
    # +, -, *, +- written plainly, five wordings, four stories: nothing was left untested.
    assert len(readings) == 4 + len(WORDED) + len(STORIES)


def test_steps_of_a_working_are_true_and_end_at_the_result() -> None:
    for problem in generate_problems("build", N, seed=4):
        steps = re.findall(r"(\d+) ([-+*]) (\d+) = (-?\d+)\.", problem.working)
        assert " ".join("{} {} {} = {}.".format(*step) for step in steps) == problem.working
        for a, sign, b, c in steps:
            assert int(c) == {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign]
        assert int(steps[-1][3]) == problem.result, problem


def test_results_are_positive() -> None:
    # The judge reads the last number of an answer; a lost minus sign must not be able to matter.
    assert min(problem.result for problem in generate_problems("align", N, seed=5)) > 0


def test_same_seed_gives_the_same_problems_another_seed_others() -> None:
    again = generate_problems("align", 40, seed=7)
    assert generate_problems("align", 40, seed=7) == again
    assert generate_problems("align", 40, seed=8) != again


def test_a_longer_draw_starts_with_the_shorter_one() -> None:
    # `skip` relies on it: two sources of one seed must not meet.
    assert generate_problems("align", 30, seed=7)[:10] == generate_problems("align", 10, seed=7)


def test_no_problem_stands_in_two_splits_whatever_the_seeds() -> None:
    problems = {
        split: {(p.kind, p.numbers) for seed in range(3) for p in generate_problems(split, 400, seed)}
        for split in SPLITS
    }
    assert problems["build"].isdisjoint(problems["align"])
    assert problems["build"].isdisjoint(problems["held_out"])
    assert problems["align"].isdisjoint(problems["held_out"])


def test_a_problem_in_other_words_or_swapped_stays_in_its_split() -> None:
    for a in range(11, 40):
        one = Problem("add", (a, 50), f"What is {a} + 50?", "", a + 50)
        other = one._replace(text=f"Add {a} and 50.")
        assert split_of(one) == split_of(other) == split_of(one._replace(numbers=(50, a)))


def test_the_splits_share_problems_as_announced() -> None:
    # 60 / 20 / 20 %; of 5,000 draws a share is within ±3 points (five standard deviations: 5 · √(0.24/5000) = 0.035).
    splits = [split_of(Problem("add", (a, b), "", "", 0)) for a in range(100) for b in range(100, 150)]
    assert splits.count("build") / 5000 == pytest.approx(0.6, abs=0.035)
    assert splits.count("align") / 5000 == pytest.approx(0.2, abs=0.035)


def test_no_problem_comes_twice_in_a_draw() -> None:
    problems = generate_problems("held_out", N, seed=1)
    assert len({(problem.kind, problem.numbers) for problem in problems}) == N


def test_prompts_carry_what_a_suite_needs() -> None:
    first = arithmetic_prompts("held_out", 3, seed=2)[0]
    problem = generate_problems("held_out", 3, seed=2)[0]
    assert (first.id, first.text, first.target) == ("arithmetic-held_out-2-0001", problem.text, str(problem.result))
    assert (first.category, first.split, first.license) == (problem.kind, "held_out", "Apache-2.0")
    assert first.expect == "answer"


def test_asking_for_too_many_is_an_error_with_both_numbers() -> None:
    # Every eighth problem is a product, of which there are 8 · 88 = 704 in all and about 140 held out.
    with pytest.raises(PromptError, match=r"only 1\d\d\d different problems of split 'held_out', not 9000") as caught:
        generate_problems("held_out", 9000, seed=0)
    assert "\n" not in str(caught.value)
