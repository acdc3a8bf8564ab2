"""The arithmetic judge: is the answer's value that of the reference? Parsing and comparison are math-verify's."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from typing import cast

from presafe.records import Verdict

_COSTLY = re.compile(r"\^|\*\*|!|\\(?:binom|exp|prod|sum)")
"""What can stand for a number too large to work out: 9^9^9^9 keeps the parser busy for ever."""

_LIMIT_S = 20.0
"""Time for one costly answer, two or three seconds of it to start. Ours."""


def judge_math(answer: str, target: str, *, truncated: bool) -> Verdict:
    """Compare an answer with a reference.

    Args:
        answer: The answer without its thought, in words, numbers or LaTeX.
        target: The reference.
        truncated: Whether the thought was cut off: then there is no answer, and it counts as unjudged.

    Returns:
        "right", "wrong", or "unjudged" for a truncated thought and for an answer that cannot be worked out in
        time. An answer without a number is wrong.
    """
    if truncated:
        return "unjudged"
    if not _COSTLY.search(answer):
        return _compare(answer, target)
    # math-verify's own time limit needs signals of the main thread, which scorers do not run in.
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps([answer, target]),
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return "unjudged"
    return cast(Verdict, done.stdout) if done.stdout in ("right", "wrong") else "unjudged"


def _compare(answer: str, target: str) -> Verdict:
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of the missing time limit at every call
    gold = parse(f"${target}$", parsing_timeout=None)
    return "right" if verify(gold, parse(answer, parsing_timeout=None), timeout_seconds=None) else "wrong"


if __name__ == "__main__":
    sys.stdout.write(_compare(*json.load(sys.stdin)))
