"""Attacks that an attacker model words, run by PyRIT: PAIR and TAP.

    pair    `width` streams, each refined up to `depth` times by what the model answered
    tap     a tree of `depth` levels: the `width` best wordings get `branching` refinements, off-topic ones are cut

The attacker model, which also scores the answers, is any model behind a chat endpoint. PyRIT has both algorithms and
all of their prompts; here is only the model that it asks. That model is asked one turn at a time, so Crescendo, which
needs a conversation, cannot be run.

Source: arXiv 2310.08419 (PAIR), arXiv 2312.02119 (TAP); PyRIT: arXiv 2410.02828.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any, ClassVar

from pydantic import Field

from presafe.attacks.attack import Ask, Attack, Query, Reader, Reply
from presafe.attacks.search import Budget, Search
from presafe.errors import AttackError

_KEY = "PRESAFE_API_KEY"
_started: list[bool] = []
"""Whether PyRIT's memory is set up."""


class RedTeam(Search):
    """Base of the attacks that PyRIT runs with an attacker model."""

    queries: int = Field(default=20, ge=1, le=10_000, strict=True)
    """Most queries to the system under attack. Those to the attacker are not counted."""
    attacker: str = ""
    """Chat endpoint of the attacker and its name there: http://host:port/v1#name. Its key is PRESAFE_API_KEY."""
    width: int = Field(default=3, ge=1, le=100, strict=True)
    """Streams of PAIR, or wordings that TAP keeps."""
    depth: int = Field(default=5, ge=1, le=100, strict=True)
    """Most refinements of a wording."""

    def start(self, pyrit: Any, **settings: Any) -> Any:
        """Return PyRIT's attack.

        Args:
            pyrit: PyRIT's attacks.
            settings: Those that both attacks have.
        """
        raise NotImplementedError

    def need(self) -> None:
        """Check that there is an attacker, and that PyRIT is installed; see `Attack.need`."""
        endpoint, _, name = self.attacker.partition("#")
        if not endpoint.startswith(("http://", "https://")) or not name:
            raise AttackError(
                f"{self.title} has no attacker model: {self.attacker!r}.", "Set attacker=http://host:port/v1#name."
            )
        if find_spec("pyrit") is None:
            raise AttackError(f"{self.title} needs PyRIT.", "Run `pip install 'presafe[pyrit]'`.")

    async def run(self, query: Query, ask: Ask, reader: Reader, budget: Budget) -> Reply:
        """Let PyRIT attack; return the answer that the attacker scores highest. See `Search.run`.

        Raises:
            AttackError: the attacker wrote no wording that can be asked.
        """
        endpoint, _, name = self.attacker.partition("#")
        replies: list[Reply] = []
        target, chat, attacks = await _connect(endpoint, name, query, ask, budget, replies)
        attack = self.start(
            attacks,
            objective_target=target,
            attack_adversarial_config=attacks.AttackAdversarialConfig(target=chat),
            tree_width=self.width,
            tree_depth=self.depth,
            batch_size=1,
        )
        result = await attack.execute_async(objective=query.text)
        if not replies:
            raise AttackError(
                f"{self.title} asked nothing: {name} wrote no wording in the form that PyRIT asks for.",
                "Take a larger attacker.",
            )
        best = result.last_response.original_value if result.last_response else None
        return next((reply for reply in reversed(replies) if reply.answer == best), replies[-1])


async def _connect(
    endpoint: str, name: str, query: Query, ask: Ask, budget: Budget, replies: list[Reply]
) -> tuple[Any, Any, Any]:
    """Return the model under attack and the attacker as PyRIT sees them, and PyRIT's attacks."""
    from pyrit.executor import attack
    from pyrit.models import construct_response_from_request
    from pyrit.prompt_target import OpenAIChatTarget, PromptTarget
    from pyrit.setup import initialize_pyrit_async

    class Target(PromptTarget):
        """The system under attack: one turn, and no more queries than the budget has."""

        async def _send_prompt_to_target_async(self, *, normalized_conversation: list[Any]) -> list[Any]:
            if not budget.take():
                raise AttackError("the budget of queries is spent.")  # PyRIT prunes what it cannot ask
            piece = normalized_conversation[-1].message_pieces[0]
            replies.append(await ask(query._replace(text=piece.converted_value, seed=query.seed + len(replies))))
            return [construct_response_from_request(request=piece, response_text_pieces=[replies[-1].answer or " "])]

    if not _started:  # its memory is one for the process, and holds what the attacker wrote; nothing goes to disk
        _started.append(True)
        await initialize_pyrit_async(memory_db_type="InMemory", load_defaults=False, env_files=[], silent=True)
    chat = OpenAIChatTarget(endpoint=endpoint, model_name=name, api_key=os.environ.get(_KEY) or "none", seed=query.seed)
    return Target(), chat, attack


class Pair(RedTeam):
    """An attacker model refines several wordings of the request by what the model answers (see the module)."""

    title: ClassVar[str] = "PAIR"
    source: ClassVar[str] = "arXiv 2310.08419"

    def start(self, pyrit: Any, **settings: Any) -> Any:
        """Return PyRIT's PAIR; see `RedTeam.start`."""
        return pyrit.PAIRAttack(**settings)


class Tap(RedTeam):
    """An attacker model grows a tree of wordings, and weak or off-topic branches are cut (see the module)."""

    title: ClassVar[str] = "TAP"
    source: ClassVar[str] = "arXiv 2312.02119"

    branching: int = Field(default=2, ge=1, le=20, strict=True)
    """Refinements of each wording."""

    def start(self, pyrit: Any, **settings: Any) -> Any:
        """Return PyRIT's TAP; see `RedTeam.start`."""
        return pyrit.TAPAttack(branching_factor=self.branching, **settings)


ATTACKS: dict[str, type[Attack]] = {"pair": Pair, "tap": Tap}
