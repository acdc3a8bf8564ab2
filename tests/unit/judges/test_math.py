"""Compare values in a worker process: verdicts, limits, and workers that die."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from presafe.errors import JudgeError
from presafe.judges import math
from presafe.judges.math import grade_math
from presafe.records import Verdict


def judge_math(answer: str, target: str, *, truncated: bool = False) -> Verdict:
    return grade_math(answer, target, truncated=truncated).verdict


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
def test_same_value_is_right(answer: str, target: str) -> None:
    assert judge_math(answer, target, truncated=False) == "right"


@pytest.mark.parametrize(
    ("answer", "target"),
    [("41", "42"), ("4", "42"), ("142", "42"), ("42", "-42"), ("The answer is 42, not 43.", "42.5"), ("5", "-5")],
)
def test_other_value_is_wrong(answer: str, target: str) -> None:
    assert judge_math(answer, target, truncated=False) == "wrong"


def test_graded_holds_the_value_that_was_read() -> None:
    assert [grade_math(answer, "42", truncated=False).read for answer in ("It is 41.", "\\boxed{82/2}", "x", "")] == [
        "41",
        "41",
        "x",
        None,
    ]
    assert grade_math("42", "42", truncated=True).read is None


def test_answer_after_a_timeout_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("presafe.judges.math._LIMIT_S", 0.3)
        assert judge_math("9^9^9^9", "42", truncated=False) == "unjudged"
    assert judge_math("42", "42", truncated=False) == "right"


@pytest.mark.parametrize("answer", ["", "I do not know.", "forty-two"])
def test_answer_without_a_number_is_wrong(answer: str) -> None:
    assert judge_math(answer, "42", truncated=False) == "wrong"


@pytest.mark.parametrize("answer", ["42", "", "41"])
def test_cut_thought_is_unjudged(answer: str) -> None:
    assert judge_math(answer, "42", truncated=True) == "unjudged"


@pytest.mark.parametrize("answer", ["9^9^9^9", "$\\binom{10000000}{5000000}$"])
def test_too_large_number_is_unjudged_in_time(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    # Failed first: the judge had no time limit.
    judge_math("1", "1", truncated=False)  # start the worker
    monkeypatch.setattr("presafe.judges.math._LIMIT_S", 1.0)
    start = time.monotonic()
    assert judge_math(answer, "42", truncated=False) == "unjudged"
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("letters", ["x" * 70_000, "9" * 100_000, "\U0001f600" * 70_000, "\ud800" * 70_000])
def test_long_answer_is_judged_and_its_vote_cut(monkeypatch: pytest.MonkeyPatch, letters: str) -> None:
    # Failed first: only 65,536 bytes of the reply were read, and half a line of JSON stopped the run.
    monkeypatch.setattr("presafe.judges.math._LIMIT_S", 120.0)
    graded = grade_math(f"Well.\n{letters}", "42", truncated=False)
    assert graded.verdict == "wrong"
    assert len(graded.read or "") == 1000
    json.dumps(graded.read).encode()


def test_long_answer_with_the_right_value_is_right() -> None:
    assert judge_math("x" * 70_000 + "\nThe answer is 42.", "42", truncated=False) == "right"
    assert judge_math("\\boxed{42}\n" + "so it is, " * 10_000, "42", truncated=False) == "right"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
@pytest.mark.parametrize("when", ["before", "during"])
def test_dead_or_hanging_worker_costs_a_single_answer(
    monkeypatch: pytest.MonkeyPatch, end: signal.Signals, when: str
) -> None:
    # Failed first: BrokenPipeError if it died, an endless wait if it hung.
    judge_math("1", "1", truncated=False)
    worker = math._WORKER._process
    assert worker is not None
    monkeypatch.setattr(math, "_LIMIT_S", 3.0)
    monkeypatch.setattr(math, "_GRACE_S", 0.5)
    if when == "before":
        os.kill(worker.pid, end)
        time.sleep(0.2)
        assert judge_math("x" * 10**6 + " 42", "42", truncated=False) in (
            "unjudged",
            "right",
        )  # right: a new worker replaced it
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
def test_malformed_reply_leaves_the_answer_unjudged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reply: str
) -> None:
    python = tmp_path / "python"
    (tmp_path / "reply").write_text(reply, encoding="utf-8")
    python.write_text(f"#!/bin/sh\necho ready\nread question\ncat {tmp_path}/reply\necho\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(math, "_WORKER", math._Worker())
    monkeypatch.setattr(sys, "executable", str(python))
    assert grade_math("42", "42", truncated=False) == ("unjudged", None)
    assert grade_math("42", "42", truncated=False) == ("unjudged", None)  # again, from a new worker


def test_worker_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math, "_WORKER", math._Worker())
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(JudgeError, match="process that compares values does not start"):
        judge_math("42", "42", truncated=False)


def test_killed_comparison_is_unjudged_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel kills it when memory runs out."""
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


def test_comparison_ends_with_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_ordinary_powers_and_factorials_are_computed(answer: str, target: str, verdict: str) -> None:
    assert judge_math(answer, target, truncated=False) == verdict


def test_grade_math_works_outside_the_main_thread() -> None:
    # Scorers run there, where math-verify's own time limit would raise an error.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(judge_math, "So it is 42.", "42", truncated=False).result() == "right"
