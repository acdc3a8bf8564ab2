"""Harmless text made by code, for attacks that surround a request with it: questions with answers, and sentences."""

from __future__ import annotations

import random
from collections.abc import Iterator

_OPPOSITES = (
    *(("hot", "cold"), ("early", "late"), ("open", "closed"), ("heavy", "light"), ("wet", "dry"), ("near", "far")),
    *(("loud", "quiet"), ("full", "empty"), ("old", "new"), ("fast", "slow"), ("high", "low"), ("soft", "hard")),
)
_SPELLED = ("apple", "bridge", "candle", "garden", "island", "kettle", "lemon", "mirror", "needle", "orange", "pillow")
_PEOPLE = ("My neighbor", "The baker", "Our teacher", "A friend", "The gardener", "My aunt", "The postman")
_DEEDS = (
    *("watered the tomatoes", "read the newspaper", "baked a loaf of bread", "took the train to town"),
    *("painted the fence", "walked along the river", "repaired an old chair", "called a cousin"),
    *("sorted the letters", "made a pot of soup", "learned a short song", "swept the yard"),
)
_TIMES = ("on Monday", "before noon", "in the evening", "after lunch", "on a rainy day", "at the weekend")


def exchanges(count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Return questions with right answers: sums, opposites, spelling.

    Args:
        count: How many.
        rng: Random numbers.
    """

    def draw() -> tuple[str, str]:
        kind = rng.randrange(3)
        if kind == 0:
            a, b = rng.randrange(2, 60), rng.randrange(2, 60)
            return f"What is {a} plus {b}?", f"Sure! {a} plus {b} is {a + b}."
        if kind == 1:
            word, opposite = rng.choice(_OPPOSITES)
            return f"What is the opposite of {word}?", f"Sure! The opposite of {word} is {opposite}."
        word = rng.choice(_SPELLED)
        return f"How is {word} spelled?", f"Sure! It is spelled {'-'.join(word.upper())}."

    return [draw() for _ in range(count)]


def sentences(rng: random.Random) -> Iterator[str]:
    """Yield sentences about ordinary days, without end.

    Args:
        rng: Random numbers.
    """
    while True:
        yield f"{rng.choice(_PEOPLE)} {rng.choice(_DEEDS)} {rng.choice(_TIMES)}."
