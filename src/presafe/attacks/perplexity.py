"""Windowed perplexity filter: a query with an unlikely stretch of text is refused without an answer.

    score       the largest mean of −ln P over windows of w tokens, side by side, under the model itself
    threshold   what at most 1 % of own harmless prompts exceed
    refused     a query whose score is above the threshold

Faithful: windows side by side, the largest one decides. Not faithful: the paper sets the threshold at the largest score
of a set of harmful prompts; ours is set on the project's own harmless ones, so that its false alarms are known.

Source: Jain et al., arXiv 2309.00614, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

from pydantic import Field

from presafe.attacks.attack import Ask, Defense, Query, Reader, Reply
from presafe.stats.auroc import threshold_at


def window_score(surprises: Sequence[float], window: int) -> float:
    """Return the largest mean over windows side by side; the last window may be shorter.

    Args:
        surprises: −ln P of each token of a text, in nats.
        window: Tokens in a window, at least 1.

    Returns:
        The score; 0 for a text without a token.
    """
    windows = [surprises[start : start + window] for start in range(0, len(surprises), window)]
    return max((sum(part) / len(part) for part in windows), default=0.0)


class PerplexityFilter(Defense):
    """Windowed perplexity filter (see the module)."""

    title: ClassVar[str] = "Perplexity filter"
    source: ClassVar[str] = "arXiv 2309.00614"
    needs_weights: ClassVar[bool] = True

    window: int = Field(default=10, ge=1, le=10_000, strict=True)
    """Tokens in a window."""
    fpr: float = Field(default=0.01, ge=0, lt=1)
    """Share of the own harmless prompts that may be refused."""

    def threshold(self, reader: Reader) -> float:
        """Return the threshold on `Reader.harmless`, in nats per token.

        Args:
            reader: Reads probabilities.
        """
        scores = [window_score(surprises, self.window) for surprises in reader.surprises(reader.harmless)]
        return threshold_at(scores, Fraction(str(self.fpr)))

    async def answer(self, query: Query, ask: Ask, reader: Reader) -> Reply | None:
        """Refuse a query above the threshold, and ask every other one; see `Defense.answer`."""
        limit = reader.once(("perplexity", self.window, self.fpr), lambda: self.threshold(reader))
        (surprises,) = reader.surprises([query.text])
        return None if window_score(surprises, self.window) > limit else await ask(query)


DEFENSES: dict[str, type[Defense]] = {"perplexity": PerplexityFilter}
