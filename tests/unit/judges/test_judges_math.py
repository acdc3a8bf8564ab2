"""Right, wrong or unjudged: the value of an answer against a reference."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from presafe.errors import JudgeError
from presafe.judges import math
from presafe.judges.math import compare, grade_math, judge_math

REAL = Path(__file__).parents[4] / "shared" / "data" / "math500" / "test.jsonl"

RIGHT = [
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{\dfrac12}", r"\frac{1}{2}"),
    ("The answer is 1/2.", r"\frac{1}{2}"),
    ("0.5", r"\frac{1}{2}"),
    (r"\boxed{\tfrac{-3}{4}}", r"-\frac{3}{4}"),
    ("-3/4", r"-\frac34"),
    (r"$\frac{2}{4}$", r"\frac12"),
    (r"1\frac{1}{2}", r"\frac{3}{2}"),
    (r"The answer is $1\frac{1}{2}$.", "1.5"),
    (r"\boxed{[0,1)}", "[0,1)"),
    (r"The interval is $(-\infty, 3]$.", r"(-\infty,3]"),
    (r"\boxed{x \in [1,2]}", "[1,2]"),
    (r"\boxed{(1,2) \cup (3,4)}", r"(1,2)\cup(3,4)"),
    (r"\boxed{(3,4) \cup (1,2)}", r"(1,2)\cup(3,4)"),
    (r"\boxed{12\text{ cm}}", "12"),
    ("12 cm", "12"),
    ("The area is 12 cm^2.", "12"),
    (r"\boxed{12 \text{ cm}^2}", "12"),
    (r"\boxed{90^\circ}", r"90^\circ"),
    ("90 degrees", r"90^\circ"),
    (r"\boxed{90}", r"90^\circ"),
    (r"\boxed{50\%}", r"50\%"),
    ("50%", r"50\%"),
    ("50", r"50\%"),
    (r"\boxed{\$18.90}", "18.90"),
    (r"The cost is \$18.90.", "18.90"),
    (r"\boxed{\text{Evelyn}}", r"\text{Evelyn}"),
    ("Evelyn", r"\text{Evelyn}"),
    ("The answer is Evelyn.", r"\text{Evelyn}"),
    (r"\boxed{Evelyn}", r"\text{Evelyn}"),
    (r"\boxed{\text{(C)}}", r"\text{(C)}"),
    (r"\boxed{C}", r"\text{(C)}"),
    (r"\boxed{\textbf{(C)}}", "C"),
    ("(C)", "C"),
    (r"\boxed{\text{even}}", r"\text{even}"),
    (r"\boxed{x^2+2x+1}", "(x+1)^2"),
    ("x^2 + 2x + 1", "(x+1)^2"),
    (r"\boxed{y = 2x + 3}", "2x+3"),
    ("y = 2x+3", "y=2x+3"),
    (r"\boxed{2\sqrt{3}}", r"\sqrt{12}"),
    (r"2\sqrt3", r"2\sqrt{3}"),
    (r"\boxed{3\pi}", r"3\pi"),
    ("9.42477796", r"3\pi"),
    (r"\boxed{\{1,2,3\}}", r"\{3,2,1\}"),
    ("1, 2, 3", "1,2,3"),
    (r"\boxed{1,-2}", "-2,1"),
    ("x=1 or x=-2", "1,-2"),
    ("$x = 1$ or $x = -2$", "1,-2"),
    (r"\boxed{(3, \frac{\pi}{2})}", r"\left( 3, \frac{\pi}{2} \right)"),
    ("(1, 2)", "(1,2)"),
    (r"\boxed{1{,}234}", "1234"),
    ("1,234,567", "1234567"),
    (r"\boxed{10{,}080}", "10080"),
    ("1 000", "1000"),
    ("3.0", "3"),
    (r"\boxed{033}", "33"),
    ("033", "33"),
    (r"\boxed{204}", "204"),
    (r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\boxed{3 + 4i}", "3+4i"),
    ("4i+3", "3+4i"),
    (r"\boxed{5_{8}}", "5_8"),
    (r"\boxed{101_2}", "101_2"),
    ("2^{10}", "1024"),
    (r"\boxed{10^{-3}}", "0.001"),
    (r"\boxed{p - q}", "p - q"),
    (r"First \boxed{41}, no: \boxed{42}", "42"),
    (r"\boxed{42}. Check: 42 = 6*7, 43 is prime.", "42"),
    ("**42**", "42"),
    (r"Therefore, the final answer is $\boxed{42}$. I hope it is correct.", "42"),
    ("#### 42", "42"),
    ("x = 5", "x=5"),
    (r"\boxed{x=5}", "5"),
    (r"\boxed{11\sqrt2}", r"11\sqrt{2}"),
    (r"\boxed{6 - 5i}", "6 - 5i"),
    (r"\boxed{\text{June 20}}", r"\text{June 20}"),
    (r"\boxed{4:30}", "4:30"),
    (r"\(\frac{14}{3}\)", r"\frac{14}{3}"),
    (r"\[ \frac{14}{3} \]", r"\frac{14}{3}"),
    (r"-\frac{1}{3}", "-1/3"),
    (r"\boxed{\left(-\infty,0\right]\cup[2,\infty)}", r"(-\infty,0]\cup[2,\infty)"),
    ("18 dollars", "18"),
    ("$18", "18"),
    ("She makes $18 every day.", "18"),
    (r"\boxed{\text{2 hours}}", "2"),
    ("3 apples and 4 pears, so 7 in all.", "7"),
    (r"\boxed{\sin x}", r"\sin x"),
    (r"\boxed{2k+2}", "2k+2"),
    (r"\boxed{3R^2}", "3R^2"),
    (r"\boxed{15\mbox{ cm}^2}", r"15\mbox{ cm}^2"),
    ("15", r"15\mbox{ cm}^2"),
    (r"\boxed{(6,31,-1)}", "(6,31,-1)"),
    (r"\boxed{5.4 \text{ cents}}", r"5.4 \text{ cents}"),
    ("5.4", r"5.4 \text{ cents}"),
    (r"\boxed{(-1, 6)}", r"x \in (-1, 6)"),
    ("It is 1/2, or 0.5.", r"\frac12"),
    ("That is 120 minutes, or 2 hours.", "2"),
    ("Either 41 or 42, so 42.", "42"),
    ("The difference between 3 and 5 is 2.", "2"),
    ("Mia has 5 apples or so, that is 42 in all.", "42"),
    # Mixed numbers: 1 1/4 is 5/4, 11 5/6 is 71/6, 2 2/3 is 8/3.
    ("So the total is 1 1/4.", "5/4"),
    ("The answer is 11 5/6.", r"\frac{71}{6}"),
    ("The answer is -2 2/3.", r"-\frac83"),
    (r"\boxed{2 2/3}", r"\frac83"),
    (r"\boxed{1\frac14}", "5/4"),
    (r"\boxed{-1\frac14}", "-5/4"),
    (r"\boxed{2\ \frac{2}{3} \text{ hours}}", "8/3"),
    (r"$2\,\tfrac23$", "8/3"),
    ("It takes 1 1/2 hours.", "1.5"),
    ("$2 1/2", "2.5"),
    ("It rose by 2 1/2%.", "2.5"),
    (r"\boxed{33\frac13\%}", "33 1/3"),
    ("33 1/3%", r"33\frac13\%"),
    ("7/2", "3 1/2"),
    ("3 1/2", r"3\frac{1}{2}"),
    ("It is 2½.", "5/2"),
    ("½", "0.5"),
    ("The answer is minus 2 2/3.", "-8/3"),
    ("(1 1/2, 2 1/3)", r"\left(\frac32, \frac73\right)"),
    ("Total: 2 + 2/3 = 2 2/3", "8/3"),
    ("x = 2 1/2", "5/2"),
    ("The answer is not 1 1/2 but 2 1/2.", "5/2"),
    # Groups of digits.
    (r"\boxed{1\,000}", "1000"),
    (r"$1\,000$", "1000"),
    (r"The answer is 12\;345\;678.", "12345678"),
    (r"\boxed{1~000}", "1000"),
    (r"\boxed{1 000 000}", "1000000"),
    ("It is 3\u202f500 km, or 3\u2009500 km.", "3500"),
    (r"\boxed{1'000}", "1000"),
    (r"1{,}000", "1000"),
    (r"\boxed{10,\!080}", "10080"),
    (r"So it costs \$1\,000.50.", "1000.5"),
    (r"3.141\,592", "3.141592"),
    (r"\boxed{12\,\text{cm}}", "12"),
    ("€1 000", "1000"),
    # Other ways to write a number.
    ("1.2e5", "120000"),
    ("1.2 x 10^5", "120000"),
    ("\u22123", "-3"),
    ("12 cm²", "12"),
    ("x²+1", "x^2+1"),
    # What is denied, and what several values come to.
    ("The answer is not 7 but 8.", "8"),
    ("It is not 7, but rather 8.", "8"),
    ("The answer is not $7$ but $8$.", "8"),
    ("The answer is not 7 apples but 8 apples.", "8"),
    ("The answer isn't 7; it is 8.", "8"),
    ("It cannot be 7, so 8.", "8"),
    ("8, not 7", "8"),
    ("It is 8 rather than 7.", "8"),
    ("It is 8 instead of 7.", "8"),
    ("The answer is 12 apples and 3 pears, so 15.", "15"),
    ("12 apples and 3 pears, so it is $15$", "15"),
    ("The answer is 42, so he has 3 left.", "42"),
    # Times of the day.
    ("The train leaves at 11:30 am.", "11:30"),
    ("11:30 am", r"11:30\text{ a.m.}"),
    (r"\boxed{11:30\text{ p.m.}}", "11:30 pm"),
    ("11:30", "11:30 am"),
    ("11:30 pm", "23:30"),
    ("It starts at 9:15 am and ends at 11:30 am.", "11:30"),
]
"""Fractions, intervals, units, sets, words, bases, LaTeX with and without its marks; boxed and free."""

WRONG = [
    (r"\boxed{\frac{1}{3}}", r"\frac12"),
    ("0.33", r"\frac13"),
    (r"\boxed{[0,1]}", "[0,1)"),
    ("(0,1)", "[0,1)"),
    (r"\boxed{13\text{ cm}}", "12"),
    (r"\boxed{\text{Eve}}", r"\text{Evelyn}"),
    ("Bob", r"\text{Evelyn}"),
    (r"\boxed{D}", r"\text{(C)}"),
    ("The answer is D, not C.", "C"),
    (r"\boxed{(2,1)}", "(1,2)"),
    (r"\boxed{1,2}", "1,2,3"),
    (r"\boxed{1,2,3,4}", "1,2,3"),
    (r"\boxed{-\sqrt3}", r"\sqrt{3}"),
    (r"\boxed{x^2+2x}", "(x+1)^2"),
    (r"\boxed{2x+3}", "2x-3"),
    (r"\boxed{0.05}", r"50\%"),
    (r"\boxed{41}, though 42 would be nice", "42"),
    (r"\boxed{}", "42"),
    (r"\boxed{\text{odd}}", r"\text{even}"),
    (r"\boxed{101_2}", "110_2"),
    (r"\boxed{3-4i}", "3+4i"),
    (r"\boxed{(1,2) \cup (3,5)}", r"(1,2)\cup(3,4)"),
    ("1234", "123"),
    ("12345", "1234.5"),
    ("\\boxed{42}\nBut it may be \\boxed{43}", "42"),
    (r"\boxed{7}", r"\frac{7}{2}"),
    ("x = 5 or x = 6", "5"),
    (r"\boxed{\frac{\pi}{2}}", r"\pi"),
    (r"\boxed{5_{9}}", "5_8"),
    ("The answer is 3", r"3\pi"),
    ("The answer is 3 or 4", "3"),
    ("The answer is 3, 4", "3"),
    ("The answer is either 3 or 4.", "4"),
    ("It is 41 or 42", "42"),
    ("It is 41, or perhaps 42.", "42"),
    ("It costs $41 or $42.", "42"),
    ("It is 41 cm or 42 cm.", "42"),
    ("between 3 and 5", "5"),
    ("The answer is between 3 and 5.", "3"),
    (r"The answer is between $3$ and $5$.", "5"),
    ("The answer is 2 2/3.", "2"),
    ("The answer is 2 2/3.", "2/3"),
    (r"\boxed{2\frac23}", "4/3"),
    ("-2 2/3", "-4/3"),
    (r"\boxed{1\,000}", "1"),
    ("1 000", "0"),
    ("It is 1 1/2 or 2.", "3/2"),
    ("The answer is not 7 but 8.", "7"),
    ("not 7 but 8", "7"),
    ("It is 8 instead of 7.", "7"),
    ("The answer is not 7.", "7"),
    ("The answer is 12 apples and 3 pears, so 15.", "12"),
    ("12 apples and 3 pears, so 15", "3"),
    ("11:40 am", "11:30"),
    ("11:30 am", "11:30 pm"),
    ("11:30", "23:30"),
    ("11:30 am or 11:40 am", "11:40"),
]


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("42", "42"),
        ("The answer is 42.", "42"),
        ("The answer is **42**.", "42"),
        ("So 12 + 30 = 42.", "42"),
        ("12 + 30 = 42", "42"),
        ("First it looks like 41, but it is 42.", "42"),
        ("Mia has 42 apples now.", "42"),
        ("The total is $73.", "73"),
        ("The total is $5 + $68 = $73.", "73"),
        ("\\boxed{42}", "42"),
        ("x = 42", "42"),
        ("42.0", "42"),
        ("84/2", "42"),
        ("1,234", "1234"),
        ("-5", "-5"),
        ("\\frac{1}{2}", "0.5"),
    ],
)
def test_the_same_value_is_right(answer: str, target: str) -> None:
    assert judge_math(answer, target, truncated=False) == "right"


@pytest.mark.parametrize(
    ("answer", "target"),
    [("41", "42"), ("4", "42"), ("142", "42"), ("42", "-42"), ("The answer is 42, not 43.", "42.5"), ("5", "-5")],
)
def test_another_value_is_wrong(answer: str, target: str) -> None:
    assert judge_math(answer, target, truncated=False) == "wrong"


@pytest.mark.parametrize(("answer", "target"), RIGHT)
def test_another_way_to_write_it_is_right(answer: str, target: str) -> None:
    assert compare(answer, target).verdict == "right"


@pytest.mark.parametrize(("answer", "target"), WRONG)
def test_what_only_looks_like_it_is_wrong(answer: str, target: str) -> None:
    assert compare(answer, target).verdict == "wrong"


def test_there_are_enough_pairs() -> None:
    assert len(set(RIGHT)) + len(set(WRONG)) >= 120


@pytest.mark.skipif(not REAL.exists(), reason="the published files are not shipped; put them in ../shared/data")
def test_every_reference_of_math_500_is_right_boxed_and_free_and_the_next_one_wrong() -> None:
    targets = [json.loads(line)["answer"] for line in REAL.read_text(encoding="utf-8").splitlines()]
    assert len(targets) == 500
    for target, other in list(pairwise(targets))[::5]:
        assert compare(f"Adding up, we get $\\boxed{{{target}}}$.", target).verdict == "right"
        assert compare(f"Therefore the answer is ${target}$.", target).verdict == "right"
        if other != target:
            assert compare(f"\\boxed{{{other}}}", target).verdict == "wrong", (other, target)


def test_what_was_read_as_the_answer_is_told() -> None:
    assert [grade_math(said, "42", truncated=False).read for said in ("It is 41.", "\\boxed{82/2}", "x", "")] == [
        "41",
        "41",
        "x",
        None,
    ]
    assert grade_math("42", "42", truncated=True).read is None


def test_after_an_answer_that_took_too_long_the_next_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("presafe.judges.math._LIMIT_S", 0.3)
        assert judge_math("9^9^9^9", "42", truncated=False) == "unjudged"
    assert judge_math("42", "42", truncated=False) == "right"


@pytest.mark.parametrize("answer", ["", "I do not know.", "forty-two"])
def test_an_answer_without_a_number_is_wrong(answer: str) -> None:
    assert judge_math(answer, "42", truncated=False) == "wrong"


@pytest.mark.parametrize("answer", ["42", "", "41"])
def test_a_cut_thought_is_unjudged(answer: str) -> None:
    assert judge_math(answer, "42", truncated=True) == "unjudged"


@pytest.mark.parametrize("answer", ["9^9^9^9", "$\\binom{10000000}{5000000}$"])
def test_an_answer_too_large_to_work_out_is_unjudged_in_time(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    # Failed first: the judge had no time limit and worked on these for as long as anyone waited.
    judge_math("1", "1", truncated=False)  # the process that compares has started
    monkeypatch.setattr("presafe.judges.math._LIMIT_S", 1.0)
    start = time.monotonic()
    assert judge_math(answer, "42", truncated=False) == "unjudged"
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("letters", ["x" * 70_000, "9" * 100_000, "\U0001f600" * 70_000, "\ud800" * 70_000])
def test_a_long_answer_to_a_sum_is_judged_and_its_vote_cut(monkeypatch: pytest.MonkeyPatch, letters: str) -> None:
    # Failed first: the reply was read once, 65,536 bytes of it, and half a line of JSON ended the run at every rerun.
    monkeypatch.setattr("presafe.judges.math._LIMIT_S", 120.0)
    graded = grade_math(f"Well.\n{letters}", "42", truncated=False)
    assert graded.verdict == "wrong"
    assert len(graded.read or "") == 1000
    json.dumps(graded.read).encode()


def test_a_long_answer_that_ends_in_the_right_value_is_right() -> None:
    assert judge_math("x" * 70_000 + "\nThe answer is 42.", "42", truncated=False) == "right"
    assert judge_math("\\boxed{42}\n" + "so it is, " * 10_000, "42", truncated=False) == "right"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
@pytest.mark.parametrize("when", ["before", "during"])
def test_a_worker_that_dies_or_hangs_costs_no_more_than_its_answer(
    monkeypatch: pytest.MonkeyPatch, end: signal.Signals, when: str
) -> None:
    # Failed first: BrokenPipeError where it died, a wait without end where it hung.
    judge_math("1", "1", truncated=False)
    worker = math._WORKER._process
    assert worker is not None
    monkeypatch.setattr(math, "_LIMIT_S", 3.0)
    monkeypatch.setattr(math, "_GRACE_S", 0.5)
    if when == "before":
        os.kill(worker.pid, end)
        time.sleep(0.2)
        assert judge_math("x" * 10**6 + " 42", "42", truncated=False) in ("unjudged", "right")  # right: it was replaced
    else:
        with ThreadPoolExecutor(1) as pool:
            verdict = pool.submit(judge_math, "9^9^9^9", "42", truncated=False)
            time.sleep(0.5)
            os.kill(worker.pid, end)
            assert verdict.result() == "unjudged"
    assert worker.poll() is not None
    monkeypatch.undo()
    assert judge_math("42", "42", truncated=False) == "right"


@pytest.mark.parametrize(
    "reply", ["", "null", "[]", '["right"]', '["maybe", null]', '["right", 3]', "[" * 10_000, "x" * 10**6]
)
def test_a_reply_that_is_none_leaves_the_answer_unjudged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reply: str
) -> None:
    python = tmp_path / "python"
    (tmp_path / "reply").write_text(reply, encoding="utf-8")
    python.write_text(f"#!/bin/sh\necho ready\nread question\ncat {tmp_path}/reply\necho\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(math, "_WORKER", math._Worker())
    monkeypatch.setattr(sys, "executable", str(python))
    assert grade_math("42", "42", truncated=False) == ("unjudged", None)
    assert grade_math("42", "42", truncated=False) == ("unjudged", None)  # again, from another worker


def test_a_worker_that_cannot_start_is_an_error_once_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math, "_WORKER", math._Worker())
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(JudgeError, match="process that compares sums does not start"):
        judge_math("42", "42", truncated=False)


def test_a_comparison_that_the_kernel_kills_is_unjudged_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does where memory is short."""
    judge_math("1", "1", truncated=False)
    worker = math._WORKER._process
    assert worker is not None
    start = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        verdict = pool.submit(judge_math, "9^9^9^9", "42", truncated=False)
        time.sleep(0.5)
        psutil.Process(worker.pid).children()[0].kill()
        assert verdict.result() == "unjudged"
    assert time.monotonic() - start < 10
    assert judge_math("42", "42", truncated=False) == "right"
    assert math._WORKER._process is worker


def test_a_comparison_outlives_neither_its_limit_nor_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math, "_WORKER", math._Worker())
    judge_math("1", "1", truncated=False)
    worker = math._WORKER._process
    assert worker is not None
    monkeypatch.setattr(math, "_LIMIT_S", 30.0)
    with ThreadPoolExecutor(1) as pool:
        verdict = pool.submit(judge_math, "9^9^9^9", "42", truncated=False)
        time.sleep(0.5)
        (comparison,) = psutil.Process(worker.pid).children()
        os.kill(worker.pid, signal.SIGKILL)
        assert verdict.result() == "unjudged"
    comparison.wait(timeout=5)


@pytest.mark.parametrize(
    ("answer", "target", "verdict"),
    [
        ("It is $2^{10}$", "1024", "right"),
        ("$2^{10}$", "1000", "wrong"),
        ("The answer is 42!", "42", "right"),
        ("The answer is\n42!\n", "43", "wrong"),
    ],
)
def test_powers_and_factorials_of_ordinary_size_are_worked_out(answer: str, target: str, verdict: str) -> None:
    assert judge_math(answer, target, truncated=False) == verdict


def test_it_judges_outside_the_main_thread() -> None:
    # Scorers do; there math-verify's own time limit would raise.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(judge_math, "So it is 42.", "42", truncated=False).result() == "right"
