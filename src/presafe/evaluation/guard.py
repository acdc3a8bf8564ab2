"""The solver of attacks and defenses: it asks as an attack says, through a defense, and counts.

An attack begins where the user stands, so a defense sees what the attack asks: a search asks the defense, and the
defense asks the model. Every query to the model is counted (`Spent`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

from inspect_ai.model import ChatMessageUser, ContentReasoning, ModelOutput, get_model
from inspect_ai.solver import Generate, Solver, TaskState, solver

from presafe.attacks.attack import REFUSAL, Ask, Defense, Query, Reader, Reply, Search
from presafe.attacks.registry import read_attack, read_defense
from presafe.internals.surprise import prefill_costs, surprises
from presafe.judges.refusal import is_refusal
from presafe.models.logs import ATTACKED, SPENT
from presafe.models.provider import TURN, PreSafeAPI
from presafe.models.sampling import epoch_seed, tell_if_unanswered
from presafe.prompts.sets import built_in
from presafe.records import Attacked, Prefill, Spent, Turn


@solver
def guarded(seed: int, defense: str | None = None) -> Solver:
    """Return the solver that asks as attacks say, behind a defense if there is one, and counts what an answer takes.

    Args:
        seed: Seed of the eval.
        defense: Label of the defense around the model, or None.
    """
    around = read_defense(defense) if defense is not None else None
    readers: list[Reader] = []

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        api = cast(PreSafeAPI, get_model().api)
        if not readers:
            readers.append(_reader(api))
        asked = _Asked(state, generate)
        attacked = Attacked.model_validate(state.metadata[ATTACKED]) if ATTACKED in state.metadata else None
        query = Query(state.user_prompt.text, attacked.turn if attacked else Turn(), epoch_seed(seed, state.epoch))
        ask = asked.ask if around is None else _behind(around, asked.ask, readers[0])
        if attacked and attacked.search:
            search = read_attack(attacked.search)
            assert isinstance(search, Search)
            budget = search.budget(asked.count_tokens)
            reply = await search.run(query, ask, readers[0], budget)
            asked.spent = asked.spent.model_copy(update={"queries": asked.spent.queries + budget.scored})
        else:
            reply = await ask(query)
        output: ModelOutput = reply.output
        output.metadata = {**(output.metadata or {}), SPENT: asked.spent.model_dump(mode="json")}
        state.output = output
        state.messages.append(output.message)
        tell_if_unanswered(state)
        api.on_answered(1)
        return state

    return solve


def _behind(defense: Defense, ask: Ask, reader: Reader) -> Ask:
    """Return what a user asks where a defense stands before the model."""

    async def answer(query: Query) -> Reply:
        reply = await defense.answer(query, ask, reader)
        if reply is not None:
            return reply
        output = ModelOutput.from_content(str(get_model()), REFUSAL)
        output.metadata = {"complete": True}
        return Reply("", REFUSAL, output)

    return answer


class _Asked:
    """Asks the model of one sample, and counts."""

    def __init__(self, state: TaskState, generate: Generate) -> None:
        self._state, self._generate = state, generate
        self.spent = Spent(queries=0, num_read=0, num_written=0)

    def count_tokens(self) -> int:
        """Return the tokens read and written so far."""
        return self.spent.num_read + self.spent.num_written

    async def ask(self, query: Query) -> Reply:
        """Ask the model once."""
        message = ChatMessageUser(content=query.text, metadata={TURN: query.turn.model_dump(mode="json")})
        state = copy.deepcopy(self._state)
        state.messages = [message]
        output = (await self._generate(state, seed=query.seed, max_tokens=query.max_tokens)).output
        usage = output.usage
        self.spent = Spent(
            queries=self.spent.queries + 1,
            num_read=self.spent.num_read + (usage.input_tokens if usage else 0),
            num_written=self.spent.num_written + (usage.output_tokens if usage else 0),
        )
        content = output.message.content
        parts = [] if isinstance(content, str) else content
        thought = "\n".join(part.reasoning for part in parts if isinstance(part, ContentReasoning))
        return Reply(thought, output.completion, output)


def _reader(api: PreSafeAPI) -> Reader:
    """Return what searches and defenses read of a model beside its answers."""

    def read(texts: Sequence[str]) -> list[list[float]]:
        return surprises(api.local_model(), texts)

    def cost(texts: Sequence[str], prefill: Prefill) -> list[float]:
        return prefill_costs(api.local_model(), texts, prefill)

    return Reader(is_refusal, read, cost, tuple(prompt.text for prompt in built_in("benign", "align")))
