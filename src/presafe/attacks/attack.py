"""What an attack declares, and what a search and a defense do: they ask, see the answer, and ask again.

attack    (prompt, seed) → prompt          a pure function; its settings are its fields
search    ask, answer, ask again           until an answer does not refuse, or the budget is spent (`search.py`)
defense   query → answer                   asks the model once or more, or not at all
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import ConfigDict

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
    of: str | None = None
    """Address of another model to ask, CoT off; None asks the model itself."""


class Reply(NamedTuple):
    """What a model says to a query. `output` is what the caller of a search or defense gets back, whole."""

    thought: str
    answer: str
    output: Any


Ask = Callable[[Query], Awaitable[Reply]]


class Objective(NamedTuple):
    """What a search makes small: a sum of costs in nats, each of which is 0 where the attacker has what it wants."""

    begins: Prefill | None = None
    """A beginning of the model's turn: −ln P of its tokens, on average."""
    decision: float = 0.0
    """Weight of the decision before the CoT: −ln(1 − P) of a refusal by the model's own odds, and the same by the head
    if the system has one."""

    @property
    def is_read(self) -> bool:
        """Return whether there is anything to make small."""
        return self.begins is not None or self.decision > 0


class Decided(NamedTuple):
    """A decision before the CoT, as log-odds of a refusal."""

    odds: float
    """The model's own log-odds of starting a refusal."""
    head: float | None
    """The head's; None without a head."""

    @property
    def is_silent(self) -> bool:
        """Return whether neither of the two says "refuse"."""
        return self.odds < 0 and (self.head is None or self.head < 0)


def _unread(*_: Any) -> Any:
    raise AttackError("nothing reads the probability of a text here.")


class Draw(NamedTuple):
    """How neighbors of a suffix are drawn."""

    num: int
    """How many."""
    topk: int
    """For each place, the number of tokens with the steepest gradient that are drawn from."""
    seed: int


@dataclass
class Reader:
    """What a search or defense may use beside the model's answers. One reader belongs to one model."""

    refuses: Callable[[str], bool]
    """Whether an answer refuses, by the refusal strings."""
    surprises: Callable[[Sequence[str]], list[list[float]]]
    """Returns −ln P of each token of each text under the model, in nats; raises without local weights."""
    costs: Callable[[Sequence[str], Objective], list[float]] = _unread
    """Returns the cost of each text as a prompt with CoT on; raises without local weights."""
    neighbors: Callable[[str, str, Objective, Draw], list[str]] = _unread
    """Returns suffixes that differ from a suffix after a request in one token, by the gradient of the cost; raises
    without local weights."""
    decides: Callable[[str], Decided] = _unread
    """Returns the decision before the CoT about a text; raises without local weights."""
    harmless: Sequence[str] = ()
    """Own harmless prompts, to set thresholds on."""
    num_read: int = 0
    """Tokens read so far for costs and neighbors."""
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

    def need(self) -> None:
        """Check what the attack needs beside valid settings, before the first token.

        Raises:
            AttackError: something is missing, such as a package or another model.
        """

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
