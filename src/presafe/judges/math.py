"""The arithmetic judge: is the answer's value that of the reference? Parsing and comparison are math-verify's."""

from __future__ import annotations

import logging

from presafe.records import Verdict


def judge_math(answer: str, target: str, *, truncated: bool) -> Verdict:
    """Compare an answer with a reference.

    Args:
        answer: The answer without its thought, in words, numbers or LaTeX.
        target: The reference.
        truncated: Whether the thought was cut off: then there is no answer, and it counts as unjudged.

    Returns:
        "right", "wrong", or "unjudged" for a truncated thought. An answer without a number is wrong.
    """
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of the missing time limit at every call

    if truncated:
        return "unjudged"
    # The time limit of math-verify needs signals of the main thread, which scorers do not run in.
    gold = parse(f"${target}$", parsing_timeout=None)
    return "right" if verify(gold, parse(answer, parsing_timeout=None), timeout_seconds=None) else "wrong"
