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

_DOWN, _UP = (0.9, 0.75, 0.5), (1.1, 1.25, 1.5)
"""Scales between which γ is looked for, the nearest to 1 first; beyond them nothing is known of answers."""

_PRECISE = 0.02
"""To which γ is looked for."""
_MORE = 10
"""Queries that are read again beside twice those that may be refused."""


def find_scale(
    read: Callable[[float, Sequence[int]], Sequence[float]], num: int, allowed: int, most: float = 1.5
) -> float | None:
    """γ at which no more than some queries are refused, and no fewer; within 0.02.

    All queries are read once, as trained; at other scales those again that are nearest to being refused or kept.

    Args:
        read: The log-odds of refusing some queries, given a scale and their numbers; above 0 a query is refused. They
            rise with the scale.
        num: How many queries there are.
        allowed: How many may be refused; fewer than there are.
        most: The largest scale, between 1 and one and a half.

    Returns:
        The scale; None where the number is not met between a half and the largest.
    """
    from scipy.optimize import brentq

    as_trained = read(1.0, range(num))
    nearest = sorted(range(num), key=lambda query: -as_trained[query])[: 2 * allowed + _MORE]
    next_refused = as_trained[nearest[allowed]]

    @cache
    def first_kept(scale: float) -> float:
        """Log-odds of the query that is the next to be refused."""
        return next_refused if scale == 1.0 else sorted(read(scale, nearest), reverse=True)[allowed]

    tried = 1.0
    up = [*(scale for scale in _UP if scale < most), *([most] if most > 1 else [])]
    for further in _DOWN if next_refused > 0 else up:
        if (first_kept(further) > 0) != (next_refused > 0):
            scale: float = brentq(first_kept, tried, further, xtol=_PRECISE)
            return scale
        tried = further
    return None


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
