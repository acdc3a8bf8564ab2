"""How strongly a trained adapter is applied: chosen after training, by how many harmless queries it may refuse.

    W = W₀ + γ · (alpha / rank) · B A        γ = 1 is the adapter as it was trained

Training ranks queries well, and where the model begins to refuse swings with the seed; γ moves that point smoothly
(design/0007). Scaling what a training changed is known from WiSE-FT (arXiv 2109.01903) and task arithmetic (arXiv
2212.04089). To choose it at a fixed rate of wrong refusals is ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from presafe.records import write_text

LOWEST, HIGHEST = 0.5, 1.5
"""Between these γ is looked for: farther from what was trained, nothing is known of the answers."""

_PRECISE = 0.02
"""To which γ is looked for; a tenth moves one refusal in fifty."""
_MORE = 10
"""Queries that are read again beside three times those that may be refused."""


def find_scale(read: Callable[[float, Sequence[int]], Sequence[float]], num: int, allowed: int) -> float | None:
    """γ at which no more than some queries are refused, and no fewer; within 0.02.

    All queries are read once, as trained; at other scales those again that are nearest to being refused or kept.

    Args:
        read: The log-odds of refusing some queries, given a scale and their numbers; above 0 a query is refused. They
            rise with the scale.
        num: How many queries there are.
        allowed: How many may be refused; fewer than there are.

    Returns:
        The scale; None where the number is not met between `LOWEST` and `HIGHEST`.
    """
    from scipy.optimize import brentq

    as_trained = read(1.0, range(num))
    nearest = sorted(range(num), key=lambda query: -as_trained[query])[: 3 * allowed + _MORE]

    @cache
    def first_kept(scale: float) -> float:
        """Log-odds of the query that is the next to be refused."""
        return sorted(read(scale, nearest), reverse=True)[allowed]

    low, high = (LOWEST, 1.0) if sorted(as_trained, reverse=True)[allowed] > 0 else (1.0, HIGHEST)
    if first_kept(low) > 0 or first_kept(high) < 0:
        return None
    scale: float = brentq(first_kept, low, high, xtol=_PRECISE)
    return scale


def rescale(adapter: Path, alpha: float) -> None:
    """Write LoRA's alpha into an exported adapter, which `peft` and vLLM scale it by.

    Args:
        adapter: The adapter's folder.
        alpha: alpha · γ.

    Raises:
        RunError: the folder cannot be written.
    """
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    write_text(file, json.dumps(config | {"lora_alpha": alpha}, indent=2) + "\n")
