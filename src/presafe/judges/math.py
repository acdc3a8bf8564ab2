"""The arithmetic judge: is the answer's value that of the reference? Parsing and comparison are math-verify's.

What is read of an answer, in this order, is ours:

    the last box                       \\boxed{...}, whatever stands before or after it
    the final statement                what follows the last "answer is" or "answer:", else the last line
    the whole answer                   as math-verify reads it: its last expression or number

The whole answer is read, too, where the statement is one value and not the right one: "42!" may be no factorial. It is
not where the statement has several ("3, 4"), of which that reading would take one. A statement that leaves it open
("41 or 42", "between 3 and 5") is right where each of its values is; other units are another way to say one value
("120 minutes, or 2 hours").

A box or a statement without words is an expression even where no $ says so. Words ("Evelyn", "even", "(C)") are
compared as words, and numbers in a named base ("101_2") with their base.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import select
import signal
import subprocess
import sys
from threading import Lock
from typing import NamedTuple, cast

from presafe.records import Verdict

_LIMIT_S = 20.0
"""Time for one answer: 9^9^9^9 would keep the parser busy for ever. Ours."""

_MEMORY_BYTES = 4 * 2**30
"""Memory for all answers: such a number would fill it first."""

_STATED = re.compile(r"\banswer\b(?:\s+(?:is|would be|must be))?\s*:?\s*", re.IGNORECASE)
_MARKUP = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_DRESS = " \t\n*_`$.,;:"
_BRACKETS = "()[]{}\\"
_WORDS = re.compile(r"[A-Za-z][A-Za-z ]*")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_VALUE = r"((?:[a-z]\s*=\s*)?(?:\\[dt]?frac\{[^{}]*\}\{[^{}]*\}|-?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?%?))"
_UNIT = r"\s*([a-z]+(?:\^\{?\d\}?)?)?"
_EITHER = re.compile(
    rf"{_VALUE}{_UNIT}[.,;]?\s+or\s+(?:(?:maybe|perhaps|possibly|even|else|it\s+is)\s+)*{_VALUE}{_UNIT}\D*$",
    re.IGNORECASE,
)
_BETWEEN = re.compile(rf"\bbetween\s+{_VALUE}{_UNIT}\s+and\s+{_VALUE}{_UNIT}\D*$", re.IGNORECASE)
_IN_BASE = re.compile(r"([0-9A-F]+)_\{?(\d+)\}?")


class Graded(NamedTuple):
    """A verdict, and what was read as the final answer; None where nothing was."""

    verdict: Verdict
    read: str | None


def judge_math(answer: str, target: str, *, truncated: bool) -> Verdict:
    """Compare an answer with a reference; see `grade_math`."""
    return grade_math(answer, target, truncated=truncated).verdict


def grade_math(answer: str, target: str, *, truncated: bool) -> Graded:
    """Compare an answer with a reference, in another process, which gives up where it takes too long.

    Args:
        answer: The answer without its thought, in words, numbers or LaTeX.
        target: The reference.
        truncated: Whether the thought was cut off: then there is no answer, and it counts as unjudged.

    Returns:
        "right", "wrong", or "unjudged" for a truncated thought and for an answer that cannot be worked out in
        time. An answer without a number is wrong where the reference is one.
    """
    if truncated:
        return Graded("unjudged", None)
    found = _WORKER.ask(answer, target)
    return Graded(cast(Verdict, found[0]), found[1]) if found else Graded("unjudged", None)


def compare(answer: str, target: str) -> Graded:
    """As `grade_math`, in this process and without a limit."""
    from math_verify import parse, verify
    from sympy import FiniteSet

    def read(text: str) -> list[object]:
        return list(parse(text, parsing_timeout=None))

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of the missing time limit at every call
    answer = answer.replace("\\$", "").strip()  # the sign of money; $ alone may be one or open a formula
    boxed = _last_box(answer)
    said = boxed if boxed is not None else _final_statement(answer)
    vote = _plain(said)
    if in_base := _IN_BASE.fullmatch(target.strip()):
        found = _IN_BASE.fullmatch(vote)
        right = vote == in_base[1] if found is None else found.groups() == in_base.groups()
        return Graded("right" if right else "wrong", vote)
    words = _plain(target).strip(_BRACKETS)
    if _WORDS.fullmatch(words) and vote.strip(_BRACKETS).casefold() == words.casefold():
        return Graded("right", vote)
    gold = read(f"${target}$")

    def is_right(reading: list[object]) -> bool:
        return bool(verify(gold, reading, timeout_seconds=None))

    values: list[str] = []
    if boxed is not None:
        parsed = [read(f"\\boxed{{{boxed}}}"), read(f"${_bare(boxed)}$")]
    else:
        values = _left_open(said)
        parsed = [] if _WORD.search(_bare(said)) else [read(f"${_bare(said)}$")]
        if not values and not any(isinstance(each, FiniteSet) and len(each) > 1 for some in parsed for each in some):
            parsed.append(read(answer))
    right = any(map(is_right, parsed)) or (bool(values) and all(is_right(read(f"${each}$")) for each in values))
    return Graded("right" if right else "wrong", next((str(each[0]) for each in parsed if each), vote or None))


def _last_box(text: str) -> str | None:
    """What stands in the last box; braces may nest."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    inside = text[text.index("{", start) + 1 :]
    depth = 1
    for place, sign in enumerate(inside):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth == 0:
            return inside[:place]
    return None


def _final_statement(text: str) -> str:
    stated = list(_STATED.finditer(text))
    rest = text[stated[-1].end() :] if stated else ""
    lines = [line for line in ((rest.strip(_DRESS) and rest) or text).strip().splitlines() if line.strip(_DRESS)]
    return (lines[0] if rest.strip(_DRESS) else lines[-1]) if lines else ""


def _left_open(statement: str) -> list[str]:
    """The two values that a statement ends on without choosing one; none where it chooses."""
    text = statement.replace("$", "")
    found = _EITHER.search(text) or _BETWEEN.search(text)
    if found is None:
        return []
    first, unit, second, other_unit = found.groups(default="")
    same = not (unit and other_unit) or unit.casefold().rstrip("s") == other_unit.casefold().rstrip("s")
    return [first, second] if same else []


def _plain(text: str) -> str:
    """The words without their dress: "\\text{(C)}." and "**(C)**" are "(C)"."""
    text = _MARKUP.sub(r"\1", text)
    return re.sub(r"\s+", " ", text.strip(_DRESS))


def _bare(text: str) -> str:
    """An expression as math-verify reads one: units unwrapped, "or" and "and" as commas, no $ and no bold."""
    text = re.sub(r"\s+(?:or|and)\s+", ", ", _MARKUP.sub(r" \1", text))
    return text.replace("$", "").strip().strip("*`").removesuffix(".").strip()


class _Worker:
    """A process that holds the parser and compares in forks of its own; started at first use, ends with this one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = Lock()

    def ask(self, answer: str, target: str) -> list[str] | None:
        """The worker's answer; None where it took too long or fell over."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps([answer, target, _LIMIT_S]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        found: list[str] | None = json.loads(line) if line else None
        return found


_WORKER = _Worker()


def _work() -> None:
    """Answer questions until the asking process closes the pipe or ends."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    compare("1", "1")  # loading takes seconds, which no answer is charged with
    for line in sys.stdin:
        answer, target, limit_s = json.loads(line)
        print(_compared_in_time(answer, target, limit_s) or "null", flush=True)


def _compared_in_time(answer: str, target: str, limit_s: float) -> str:
    """What `compare` finds, as JSON, in a fork that can be killed: no exception ends 9**9**9 inside the interpreter."""
    found_in, found_out = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(found_out, json.dumps(compare(answer, target)).encode())
        finally:
            os._exit(0)
    os.close(found_out)
    is_there, _, _ = select.select([found_in], [], [], limit_s)
    found = os.read(found_in, 65_536).decode() if is_there else ""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(found_in)
    return found


if __name__ == "__main__":
    _work()
