"""What goes to a model and what comes back, whether its weights are in this process or behind a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from presafe.errors import ModelError
from presafe.models.family import Sampling
from presafe.models.rendering import Renderer


class UnansweredError(ModelError):
    """A server has no answer to one prompt; it may answer the others."""


class Request(NamedTuple):
    """One prompt to continue."""

    ids: list[int]
    max_tokens: int
    sampling: Sampling
    seed: int
    """Of this prompt alone, below 2^48."""


class Completion(NamedTuple):
    """What the model wrote, the end-of-turn token left in or out, and whether it stopped by itself."""

    text: str
    num_tokens: int
    stopped: bool


class Engine(Protocol):
    """Continues prompts. It loads or connects at the first need."""

    batch_size: int
    """Rows decoded together, or requests in flight at a server."""
    batch_tokens: int
    """Tokens that the rows decoded together may come to; a server looks after its own memory."""
    on_finished: Callable[[int], None]
    """Told how many prompts have just been finished; may be called from another thread."""

    def ready(self) -> Renderer:
        """Load the model or meet its server; again, it costs nothing.

        Raises:
            ModelError: no such model, server, adapter or family.
        """

    def context(self) -> int | None:
        """Tokens of prompt and answer together, at most; None where that is not known."""

    def in_flight(self) -> int:
        """How many requests are useful at once."""

    async def complete(self, request: Request) -> Completion:
        """Continue one prompt.

        Raises:
            UnansweredError: a server refused this prompt.
            ModelError: a server did not answer, or refused for another reason.
        """

    async def close(self) -> None:
        """Release connections."""
