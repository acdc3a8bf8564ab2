"""What an attack declares, and what a search and a defense do: they ask, see the answer, and ask again.

attack    (prompt, seed) → prompt          a pure function; its settings are its fields
search    ask, answer, ask again           until an answer does not refuse, or the budget is spent
defense   query → answer                   asks the model once or more, or not at all
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import ConfigDict, Field

from presafe.errors import AttackError
from presafe.records import Attacked, Prefill, Prompt, Record, Turn

Place = Literal["thought", "request", "search"]
"""What an attack changes: the model's turn or what it is asked of its thought, the request, or the request anew with
each query."""


class Query(NamedTuple):
    """One query to a model."""

    text: str
    turn: Turn = Turn()
    seed: int = 0
    """Seed of sampling."""
    max_tokens: int | None = None
    """Token budget; None takes that of the measurement."""


class Reply(NamedTuple):
    """What a model says to a query. `output` is what the caller of a search or defense gets back, whole."""

    thought: str
    answer: str
    output: Any


Ask = Callable[[Query], Awaitable[Reply]]


def _no_costs(texts: Sequence[str], prefill: Prefill) -> list[float]:
    raise AttackError("nothing reads the probability of a prefill here.")


@dataclass
class Reader:
    """What a search or defense may use beside the model's answers. One reader belongs to one model."""

    refuses: Callable[[str], bool]
    """Whether an answer refuses, by the refusal strings."""
    surprises: Callable[[Sequence[str]], list[list[float]]]
    """Returns −ln P of each token of each text under the model, in nats; raises without local weights."""
    costs: Callable[[Sequence[str], Prefill], list[float]] = _no_costs
    """Returns −ln P of each token of a prefill, on average, after each text as a prompt with CoT on, in nats; raises
    without local weights."""
    harmless: Sequence[str] = ()
    """Own harmless prompts, to set thresholds on."""
    _kept: dict[Hashable, float] = field(default_factory=dict)

    def once(self, key: Hashable, compute: Callable[[], float]) -> float:
        """Return a number that is computed when it is first needed, and then kept.

        Args:
            key: What the number depends on.
            compute: Computes it.
        """
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]

    def gave_in(self, reply: Reply) -> bool:
        """Return whether there is an answer that does not refuse."""
        return bool(reply.answer.strip()) and not self.refuses(reply.answer)


class Attack(Record):
    """Base of every attack. The fields of a class are the attack's settings."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    title: ClassVar[str]
    place: ClassVar[Place]
    source: ClassVar[str]
    """Paper and arXiv id, or "ours"."""
    needs_weights: ClassVar[bool] = False
    """Whether it reads the model's own probabilities, so that a served model cannot be attacked with it."""

    def words(self, request: str, rng: random.Random) -> str:
        """Return the user's text.

        Args:
            request: The plain request.
            rng: Random numbers of this prompt.
        """
        return request

    def prefill(self) -> Prefill | None:
        """Return how the model's turn begins; None leaves it to the model."""
        return None

    def apply(self, prompt: Prompt, seed: int, label: str) -> Prompt:
        """Return a prompt under the attack. The same prompt, seed and settings give the same result.

        Args:
            prompt: The plain prompt.
            seed: Seed of what the attack draws.
            label: Name and settings of the attack.
        """
        rng = random.Random(f"{seed} {label} {prompt.id}")
        attacked = Attacked(request=prompt.text, turn=Turn(prefill=self.prefill()))
        return prompt.model_copy(update={"text": self.words(prompt.text, rng), "attacked": attacked})


@dataclass
class Budget:
    """What a search may still spend."""

    queries: int
    tokens: int | None
    minutes: float | None
    count_tokens: Callable[[], int]
    """Returns the tokens that the search has read and written so far."""
    scored: int = 0
    """Queries that were scored by probabilities alone, without an answer."""
    started: float = field(default_factory=time.monotonic)

    def take(self, count: int = 1) -> bool:
        """Take some queries; return False if the budget has less left.

        Args:
            count: Number of queries.
        """
        is_spent = (
            self.queries < count
            or (self.tokens is not None and self.count_tokens() >= self.tokens)
            or (self.minutes is not None and time.monotonic() - self.started >= 60 * self.minutes)
        )
        self.queries -= 0 if is_spent else count
        return not is_spent


class Search(Attack):
    """Base of every attack that asks several times. Each prompt has its own budget; the first query is always asked."""

    place: ClassVar[Place] = "search"

    queries: int = Field(default=10, ge=1, le=10_000, strict=True)
    """Most queries to the system under attack."""
    tokens: int | None = Field(default=None, ge=1, strict=True)
    """Most tokens read and written, after which no further query is asked; None sets no limit."""
    minutes: float | None = Field(default=None, gt=0)
    """Most minutes, after which no further query is asked; None sets no limit. With it, results depend on the machine.
    """

    def apply(self, prompt: Prompt, seed: int, label: str) -> Prompt:
        """Return the prompt as it is, with the search's name; the search words the request. See `Attack.apply`."""
        return prompt.model_copy(update={"attacked": Attacked(request=prompt.text, search=label)})

    def budget(self, count_tokens: Callable[[], int]) -> Budget:
        """Return the budget of one prompt.

        Args:
            count_tokens: As `Budget.count_tokens`.
        """
        return Budget(self.queries, self.tokens, self.minutes, count_tokens)

    async def run(self, query: Query, ask: Ask, reader: Reader, budget: Budget) -> Reply:
        """Ask until an answer does not refuse, or the budget is spent; return the last reply.

        Args:
            query: The plain request; its seed is that of the search.
            ask: Asks the system under attack.
            reader: Reads answers.
            budget: What the search may spend.
        """
        raise NotImplementedError


class Defense(Record):
    """Base of every defense: around any model, with what it costs counted. The fields of a class are its settings."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    title: ClassVar[str]
    source: ClassVar[str]
    needs_weights: ClassVar[bool] = False
    """Whether it reads the model's own probabilities or states, so that a served model cannot have it."""

    def most_queries(self) -> int:
        """Return how many queries one answer takes at most."""
        return 1

    def changed(self, query: Query) -> Query:
        """Return what is asked in place of a query."""
        return query

    async def answer(self, query: Query, ask: Ask, reader: Reader) -> Reply | None:
        """Answer a query; None refuses it with `REFUSAL`.

        Args:
            query: What the user, or an attack, asks.
            ask: Asks the model.
            reader: Reads answers and probabilities.
        """
        return await ask(self.changed(query))


REFUSAL = "I'm sorry, but I can't help with that."
"""Answer of a defense that refuses without the model. Ours."""
