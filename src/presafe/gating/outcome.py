"""Decide what is done with a request, from the probabilities that were read.

answered      the model answers
flagged       the model answers, and p is at or above the threshold (monitor)
refused       the gate refuses
unavailable   no decision was read, and the gate answers 503 then
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from .gate_file import Calibration, Mode, Unread

Action = Literal["answered", "flagged", "refused", "unavailable"]
_MOST_IN_HEADER = 64
"""Prompts whose p is in the header; the field has all."""


class Outcome(NamedTuple):
    """What was decided about a request, and what is done."""

    probabilities: list[float]
    """p of each distinct prompt that was read, in [0, 1]."""
    num_unread: int
    action: Action
    by_unread: bool
    """Whether the action was taken because a prompt has no decision."""


def outcome_of(
    probabilities: list[float], num_prompts: int, mode: Mode, threshold: float, unread: Unread, *, refused: bool
) -> Outcome:
    """Return what is done with a request.

    Args:
        probabilities: p of each prompt that was read.
        num_prompts: Its distinct prompts.
        mode: Mode of the name that it asks.
        threshold: The gate's, in (0, 1).
        unread: What a gated name does where no decision was read.
        refused: Whether the gate refuses one of the prompts.
    """
    num_unread = max(0, num_prompts - len(probabilities))
    if mode != "gate":
        is_flagged = any(probability >= threshold for probability in probabilities)
        return Outcome(probabilities, num_unread, "flagged" if is_flagged else "answered", False)
    if num_unread and unread != "answer":
        return Outcome(probabilities, num_unread, "refused" if unread == "refuse" else "unavailable", True)
    return Outcome(probabilities, num_unread, "refused" if refused else "answered", False)


def headers_of(outcome: Outcome) -> list[tuple[bytes, bytes]]:
    """Return the headers that tell a client what was decided.

    Args:
        outcome: What was decided.
    """
    headers = [(b"x-presafe-action", outcome.action.encode())]
    if outcome.probabilities:
        text = ",".join(f"{probability:.6f}" for probability in outcome.probabilities[:_MOST_IN_HEADER])
        headers.append((b"x-presafe-refuse-probability", text.encode()))
    return headers


def calibrated(probability: float, calibration: Calibration) -> float:
    """Return σ(slope · z + intercept) for p = σ(z).

    Args:
        probability: p in [0, 1].
        calibration: The gate's.
    """
    p = min(max(probability, 1e-12), 1 - 1e-12)
    z = calibration.slope * math.log(p / (1 - p)) + calibration.intercept
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
