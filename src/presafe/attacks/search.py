"""A search: an attack that asks several times, with a budget of its own for each prompt.

    best_of_n       asks the model with each wording
    suffix search   scores wordings by probabilities (`SuffixAttack`), and asks once, with the best one

A suffix search keeps its state after each round: the best suffix, the cost after each round, what it has spent. A
killed search begins again where it was: what a round draws depends on the seed and the round's number alone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import Field

from presafe.attacks.attack import Ask, Attack, Objective, Place, Query, Reader, Reply
from presafe.records import Attacked, Prompt, Record

SEARCH = "search"
"""Key of an output's metadata with what a search found."""


class SearchState(Record):
    """How far a suffix search is."""

    suffix: str
    """The best suffix so far, with the space before it."""
    costs: tuple[float, ...] = ()
    """Cost of the best suffix after each round, in nats."""
    queries: int = Field(default=0, ge=0)
    """Queries that were scored by probabilities, without an answer."""
    tokens: int = Field(default=0, ge=0)
    """Tokens read for them."""
    seconds: float = Field(default=0.0, ge=0)
    """Time taken so far."""


@dataclass
class Budget:
    """What a search may still spend on one prompt, and where it keeps how far it is."""

    queries: int
    tokens: int | None
    minutes: float | None
    count_tokens: Callable[[], int]
    """Returns the tokens that the search has read and written so far."""
    state: SearchState | None = None
    """How far the search is: at first, what a killed one left; None begins anew."""
    keep: Callable[[SearchState], None] = lambda _: None
    """Keeps the state after a round."""
    started: float = field(default_factory=time.monotonic)

    def take(self, count: int = 1) -> bool:
        """Take some queries; return False if the budget has less left.

        Args:
            count: Number of queries.
        """
        is_spent = (
            self.queries < count
            or (self.tokens is not None and self.count_tokens() >= self.tokens)
            or (self.minutes is not None and self.seconds() >= 60 * self.minutes)
        )
        self.queries -= 0 if is_spent else count
        return not is_spent

    def seconds(self) -> float:
        """Return the time taken so far."""
        return time.monotonic() - self.started

    def resume(self) -> None:
        """Take what a killed search has spent."""
        if self.state is not None:
            self.queries -= self.state.queries
            self.started -= self.state.seconds


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

    def objective(self) -> Objective:
        """Return what the search makes small by the model's own probabilities; nothing if it reads answers alone."""
        return Objective()

    async def run(self, query: Query, ask: Ask, reader: Reader, budget: Budget) -> Reply:
        """Ask until an answer does not refuse, or the budget is spent; return the last reply.

        Args:
            query: The plain request; its seed is that of the search.
            ask: Asks the system under attack.
            reader: Reads answers.
            budget: What the search may spend.
        """
        raise NotImplementedError


class SuffixAttack(Search):
    """Base of every search for a suffix after the request, by the model's own probabilities.

    1. a suffix of x's
    2. in each round, some candidates (`propose`), scored in one forward pass
    3. the candidate with the lowest cost becomes the best, if it beats it
    4. when the budget is spent, the model is asked once, with the best suffix

    Behind a defense, the search still reads the bare model: who searches like this has the weights.
    """

    needs_weights: ClassVar[bool] = True

    def first(self) -> str:
        """Return the suffix that the search begins with."""
        raise NotImplementedError

    def per_round(self) -> int:
        """Return how many queries a round takes."""
        raise NotImplementedError

    def propose(self, request: str, best: str, reader: Reader, rng: random.Random, left: float) -> list[str]:
        """Return the candidates of a round beside the best suffix.

        Args:
            request: The plain request.
            best: The best suffix so far.
            reader: Reads gradients.
            rng: Random numbers of the round.
            left: Share of the budget of queries that is left, in [0, 1].
        """
        raise NotImplementedError

    async def run(self, query: Query, ask: Ask, reader: Reader, budget: Budget) -> Reply:
        """Search, then ask once; see `Search.run`. The reply's metadata hold the suffix and the costs."""
        state = budget.state or SearchState(suffix=self.first())
        budget.take()  # of the answer
        budget.resume()
        objective, per_round = self.objective(), self.per_round()
        while budget.take(per_round):
            rng = random.Random(f"{query.seed} {type(self).__name__} {len(state.costs)} {query.text}")
            left = budget.queries / self.queries
            candidates = [state.suffix, *self.propose(query.text, state.suffix, reader, rng, left)]
            costs = reader.costs([query.text + suffix for suffix in candidates], objective)
            lowest = min(range(len(costs)), key=costs.__getitem__)
            state = SearchState(
                suffix=candidates[lowest],
                costs=(*state.costs, round(costs[lowest], 4)),
                queries=state.queries + per_round,
                tokens=budget.count_tokens(),
                seconds=round(budget.seconds(), 2),
            )
            budget.state = state
            budget.keep(state)
        reply = await ask(query._replace(text=query.text + state.suffix))
        searched: dict[str, object] = {"suffix": state.suffix, "costs": list(state.costs)}
        if objective.decision:
            searched["silent"] = reader.decides(query.text + state.suffix).is_silent
        reply.output.metadata = {**(reply.output.metadata or {}), SEARCH: searched}
        return reply
