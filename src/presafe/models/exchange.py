"""Requests to a model and its completions, whether its weights are in this process or behind a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from presafe.errors import ModelError
from presafe.models.family import Sampling
from presafe.models.rendering import Answer, Renderer
from presafe.records import Thinking


class UnansweredError(ModelError):
    """A server refused one prompt; it may answer the others."""


class UnreachableError(ModelError):
    """A server did not answer within its tries."""


class Request(NamedTuple):
    """One prompt to continue."""

    ids: list[int]
    max_tokens: int
    sampling: Sampling
    seed: int
    """Seed of this prompt, below 2^48."""
    text: str = ""
    """The user's text, for a server that renders the prompt itself."""
    thinking: Thinking = "on"
    """Mode in which it is asked."""


def greeting_of(renderer: Renderer, thinking: Thinking) -> Request:
    """Return a request for one token, with which a server is greeted.

    Args:
        renderer: The model's tokenizer and family.
        thinking: Mode in which it is asked.
    """
    ids = renderer.render("Hello.", thinking).ids
    return Request(ids, max_tokens=1, sampling=Sampling(), seed=0, text="Hello.", thinking=thinking)


class Completion(NamedTuple):
    """What the model wrote, with or without its end-of-turn token, and whether it stopped by itself."""

    text: str
    num_tokens: int
    stopped: bool
    ids: tuple[int, ...] = ()
    """The sampled tokens, with the one that ends the turn; none from a server, which sends text."""
    answer: Answer | None = None
    """Thought and answer, if the server has split them; then `text` is the answer's text as it was sent."""


class Engine(Protocol):
    """Continues prompts. It loads the model or connects when it is first needed."""

    batch_size: int
    """Largest number of rows decoded together, or of requests in flight at a server."""
    batch_tokens: int
    """Largest number of tokens of the rows decoded together; a server manages its own memory."""
    on_finished: Callable[[int], None]
    """Called with the number of prompts that have just finished, perhaps from another thread."""

    def ready(self) -> Renderer:
        """Load the model, or connect to its server; a second call costs nothing.

        Raises:
            ModelError: no such model, server, adapter or family.
        """

    def context(self) -> int | None:
        """Return the largest number of tokens of prompt and answer together, or None if it is not known."""

    def in_flight(self) -> int:
        """Return how many requests are useful at once."""

    async def complete(self, request: Request) -> Completion:
        """Continue one prompt.

        Raises:
            UnansweredError: a server refused this prompt.
            ModelError: a server did not answer, or refused for another reason.
        """

    async def close(self) -> None:
        """Release connections."""
