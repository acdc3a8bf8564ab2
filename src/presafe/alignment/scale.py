"""The strength of a trained adapter, chosen after training by how many harmless queries it may refuse.

    W = W₀ + γ · (alpha / rank) · B A        γ = 1 is the adapter as it was trained

Training ranks queries well, but the point at which the model begins to refuse varies with the seed; γ moves this point
smoothly (design/0007). Scaling the change of a training is known from WiSE-FT (arXiv 2109.01903) and task arithmetic
(arXiv 2212.04089). Choosing γ at a fixed rate of wrong refusals is ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from presafe.config.recipe import AlignSettings
from presafe.methods.method import AdapterShape
from presafe.runs.io import write_text

_SCALES_DOWN = (0.9, 0.75, 0.5)
"""Scales that the search tries below 1, in this order; the quality of answers beyond them is unknown."""
_SCALES_UP = (1.1, 1.25, 1.5)
"""Scales that the search tries above 1, in this order; the quality of answers beyond them is unknown."""
_TOLERANCE = 0.02
"""Tolerance of the search for γ."""
_EXTRA_QUERIES = 10
"""Extra queries scored again, on top of 2 × `allowed`."""


def find_scale(
    log_odds: Callable[[float, Sequence[int]], Sequence[float]], num_queries: int, allowed: int, largest: float = 1.5
) -> float | None:
    """Find the γ at which exactly `allowed` queries are refused, within a tolerance of 0.02.

    All queries are scored once, at γ = 1. At other scales only the queries nearest to the border of refusal are scored.

    Args:
        log_odds: Function of a scale and query indices that returns the log-odds of refusal for these queries. A query
            is refused if its log-odds are above 0. They increase with the scale.
        num_queries: Number of queries.
        allowed: Number of queries that may be refused, in [0, num_queries).
        largest: Largest scale, in [1, 1.5].

    Returns:
        The scale, or None if no scale between 0.5 and `largest` refuses exactly `allowed` queries.
    """
    from scipy.optimize import brentq

    as_trained = log_odds(1.0, range(num_queries))
    most_refused_first = sorted(range(num_queries), key=lambda query: -as_trained[query])
    candidates = most_refused_first[: 2 * allowed + _EXTRA_QUERIES]
    border_as_trained = as_trained[candidates[allowed]]

    @cache
    def border(scale: float) -> float:
        """Return the log-odds of the query that ranks just after the `allowed` refused ones."""
        return border_as_trained if scale == 1.0 else sorted(log_odds(scale, candidates), reverse=True)[allowed]

    refuses_too_many = border_as_trained > 0
    scales_up = [scale for scale in _SCALES_UP if scale < largest]
    if largest > 1:
        scales_up.append(largest)
    previous = 1.0
    for scale in _SCALES_DOWN if refuses_too_many else scales_up:
        if (border(scale) > 0) != refuses_too_many:
            root: float = brentq(border, previous, scale, xtol=_TOLERANCE)
            return root
        previous = scale
    return None


def trained_alpha(align: AlignSettings, adapter: AdapterShape | None) -> float:
    """Return LoRA's alpha of an adapter as it is trained; alpha / rank is the recipe's, also of another rank."""
    return align.lora_alpha if adapter is None else align.lora_alpha * adapter.rank / align.lora_rank


def rescale(adapter: Path, alpha: float) -> None:
    """Write LoRA's alpha into an exported adapter; `peft` and vLLM scale the adapter by it.

    Args:
        adapter: The adapter's folder.
        alpha: alpha · γ.

    Raises:
        RunError: the folder cannot be written.
    """
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    write_text(file, json.dumps(config | {"lora_alpha": alpha}, indent=2) + "\n")
