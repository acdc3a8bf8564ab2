"""Best-of-N: the request is asked again and again with random slips of the pen, until one answer does not refuse.

    1. scramble    the inner letters of a word of four or more letters, with p = 0.6
    2. capitalize  each letter, with p = 0.6
    3. noise       a printable character becomes its neighbor in ASCII, with p = 0.06

Faithful: the three changes, their order and their probabilities (appendix A.1). Not faithful: the paper's grader is a
model; here the refusal strings end the search, and the chosen judge reads the last answer. N is small by default: the
paper's is 10,000.

Source: arXiv 2412.03556.
"""

from __future__ import annotations

import random
import re
from typing import ClassVar

from pydantic import Field

from presafe.attacks.attack import Ask, Attack, Query, Reader, Reply
from presafe.attacks.search import Budget, Search

_SCRAMBLED, _CAPITALIZED, _NOISED = 0.6, 0.6, 0.06
_FIRST, _LAST = 32, 126
"""Printable ASCII."""


def augmented(text: str, rng: random.Random) -> str:
    """Return a text with random slips of the pen.

    Args:
        text: The text.
        rng: Random numbers.
    """

    def scrambled(word: re.Match[str]) -> str:
        if rng.random() >= _SCRAMBLED:
            return word[0]
        inner = list(word[0][1:-1])
        rng.shuffle(inner)
        return word[0][0] + "".join(inner) + word[0][-1]

    text = re.sub(r"\S{4,}", scrambled, text)
    text = "".join(letter.upper() if rng.random() < _CAPITALIZED else letter for letter in text)
    return "".join(_neighbor(letter, rng) if rng.random() < _NOISED else letter for letter in text)


def _neighbor(letter: str, rng: random.Random) -> str:
    """Return the character before or after one in ASCII; one outside of printable ASCII stays."""
    code = ord(letter) + rng.choice((-1, 1))
    return chr(code) if _FIRST <= ord(letter) <= _LAST and _FIRST <= code <= _LAST else letter


class BestOfN(Search):
    """Best-of-N jailbreaking, with the refusal strings to end it (see the module)."""

    title: ClassVar[str] = "Best-of-N"
    source: ClassVar[str] = "arXiv 2412.03556"

    queries: int = Field(default=10, ge=1, le=10_000, strict=True)
    """N, the most queries for one request."""

    async def run(self, query: Query, ask: Ask, reader: Reader, budget: Budget) -> Reply:
        """Ask with new slips of the pen each time; see `Search.run`."""
        number = 0
        budget.take()
        while True:
            rng = random.Random(f"{query.seed} best_of_n {number} {query.text}")
            reply = await ask(query._replace(text=augmented(query.text, rng), seed=query.seed + number))
            number += 1
            if reader.gave_in(reply) or not budget.take():
                return reply


ATTACKS: dict[str, type[Attack]] = {"best_of_n": BestOfN}
