"""SmoothLLM: the model answers several copies of a query with random characters changed, and the majority decides.

    copies      N queries, each with q of its characters changed; the copy's seed differs too
    vote        a copy is broken if its answer does not refuse; the query is broken if more than ½ of the copies are
    answer      that of a random copy that agrees with the majority

    swap        each of ⌊q·m⌋ characters, drawn without replacement, becomes a random printable one
    insert      after each of ⌊q·m⌋ characters, drawn without replacement, stands a random printable one
    patch       a run of ⌊q·m⌋ characters becomes random printable ones

Faithful: N, q, the three changes and the vote. Not faithful: the paper sets q by model and attack; its refusals are
found by its own list of strings, ours by the refusal strings.

Source: SmoothLLM, arXiv 2310.03684, algorithms 1 and 2.
"""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from presafe.attacks.attack import Ask, Defense, Query, Reader, Reply

Change = Literal["swap", "insert", "patch"]

_ALPHABET = string.printable


def changed(text: str, share: float, change: Change, rng: random.Random) -> str:
    """Return a text with random characters.

    Args:
        text: The text.
        share: q, in [0, 1]; ⌊q · length⌋ characters are changed.
        change: Kind of the change.
        rng: Random numbers.
    """
    count = int(share * len(text))
    if change == "patch":
        start = rng.randrange(len(text) - count + 1)
        return text[:start] + "".join(rng.choices(_ALPHABET, k=count)) + text[start + count :]
    chosen = set(rng.sample(range(len(text)), count))
    keeps = change == "insert"
    return "".join(
        (letter if keeps or place not in chosen else "") + (rng.choice(_ALPHABET) if place in chosen else "")
        for place, letter in enumerate(text)
    )


def majority(broken: Sequence[bool]) -> bool:
    """Return whether more than half of the copies are broken."""
    return 2 * sum(broken) > len(broken)


class SmoothLLM(Defense):
    """SmoothLLM (see the module)."""

    title: ClassVar[str] = "SmoothLLM"
    source: ClassVar[str] = "arXiv 2310.03684"

    copies: int = Field(default=10, ge=1, le=100, strict=True)
    """N, the number of queries for one answer."""
    share: float = Field(default=0.1, gt=0, le=0.5)
    """q, the share of the characters that are changed."""
    change: Change = "swap"
    """Kind of the change."""

    def most_queries(self) -> int:
        """Return N; see `Defense.most_queries`."""
        return self.copies

    async def answer(self, query: Query, ask: Ask, reader: Reader) -> Reply:
        """Ask all copies, and return one that agrees with the majority; see `Defense.answer`."""
        rng = random.Random(f"{query.seed} smoothllm {query.text}")
        texts = [changed(query.text, self.share, self.change, rng) for _ in range(self.copies)]
        queries = [query._replace(text=text, seed=query.seed + number) for number, text in enumerate(texts)]
        replies = await asyncio.gather(*map(ask, queries))
        broken = [reader.gave_in(reply) for reply in replies]
        verdict = majority(broken)
        return rng.choice([reply for reply, is_broken in zip(replies, broken, strict=True) if is_broken == verdict])


DEFENSES: dict[str, type[Defense]] = {"smoothllm": SmoothLLM}
