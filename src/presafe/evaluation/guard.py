"""The solver of attacks and defenses: it asks as an attack says, through a defense, and counts.

An attack begins where the user stands, so a defense sees what the attack asks: a search asks the defense, and the
defense asks the model. Every query to the model is counted (`Spent`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import cast

from inspect_ai.model import ChatMessageUser, ContentReasoning, GenerateConfig, Model, ModelOutput, get_model
from inspect_ai.solver import Generate, Solver, TaskState, solver

from presafe.attacks.attack import REFUSAL, Ask, Defense, Query, Reader, Reply
from presafe.attacks.registry import read_attack, read_defense
from presafe.attacks.search import Search
from presafe.evaluation.searching import reader_of, searching
from presafe.models.logs import ATTACKED, SPENT
from presafe.models.provider import TURN, PreSafeAPI
from presafe.models.tasks import epoch_seed, tell_if_unanswered
from presafe.records import Attacked, Spent, Turn


@solver
def guarded(seed: int, defense: str | None = None) -> Solver:
    """Return the solver that asks as attacks say, behind a defense if there is one, and counts what an answer takes.

    Args:
        seed: Seed of the eval.
        defense: Label of the defense around the model, or None.
    """
    around = read_defense(defense) if defense is not None else None
    readers: list[Reader] = []

    @cache
    def other(address: str) -> Model:
        return get_model(f"presafe/{address}", memoize=False, thinking="off", keep=True)

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        api = cast(PreSafeAPI, get_model().api)
        if not readers:
            readers.append(reader_of(api))
        asked = _Asked(state, generate, other)
        attacked = Attacked.model_validate(state.metadata[ATTACKED]) if ATTACKED in state.metadata else None
        query = Query(state.user_prompt.text, attacked.turn if attacked else Turn(), epoch_seed(seed, state.epoch))
        ask = asked.ask if around is None else _behind(around, asked.ask, readers[0])
        if attacked and attacked.search:
            search = read_attack(attacked.search)
            assert isinstance(search, Search)
            reply = await asked.search(search, attacked.search, query, ask, readers[0])
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

    def __init__(self, state: TaskState, generate: Generate, other: Callable[[str], Model]) -> None:
        self._state, self._generate, self._other = state, generate, other
        self.spent = Spent(queries=0, num_read=0, num_written=0)

    def count_tokens(self) -> int:
        """Return the tokens read and written so far."""
        return self.spent.num_read + self.spent.num_written

    async def ask(self, query: Query) -> Reply:
        """Ask a model once."""
        message = ChatMessageUser(content=query.text, metadata={TURN: query.turn.model_dump(mode="json")})
        if query.of is not None:
            config = GenerateConfig(seed=query.seed, max_tokens=query.max_tokens)
            output = await self._other(query.of).generate([message], config=config)
        else:
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

    async def search(self, search: Search, label: str, query: Query, ask: Ask, reader: Reader) -> Reply:
        """Run a search, and count what it scored by probabilities, too."""
        api, read_before = cast(PreSafeAPI, get_model().api), reader.num_read

        def count() -> int:
            return self.count_tokens() + reader.num_read - read_before

        prompt_id = str(self._state.sample_id)
        with searching(api, search, label, prompt_id, query.text, query.seed, count) as budget:
            reply = await search.run(query, ask, reader, budget)
        if budget.state:  # what a killed search scored counts, too
            queries, num_read = self.spent.queries + budget.state.queries, self.spent.num_read + budget.state.tokens
            self.spent = self.spent.model_copy(update={"queries": queries, "num_read": num_read})
        return reply
