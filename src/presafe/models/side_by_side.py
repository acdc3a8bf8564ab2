"""Ask several servers of one model side by side: each request goes to the one with the fewest in flight.

A server that fails a request after its retries, or whose process has ended, is left out, and one line says so. Its
requests are asked again elsewhere. Where none is left, the last one's error ends the work. A prompt that one server
refuses would be refused by the others, too, and is not asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from presafe.errors import ModelError
from presafe.models.dialect import Dialect
from presafe.models.exchange import Completion, Request, UnansweredError, UnreachableError
from presafe.models.rendering import Renderer
from presafe.models.served import ServedEngine
from presafe.runtime.progress import console

_LOOK_S = 1.0
"""Seconds between two looks at a server's process. Ours."""


@dataclass
class Server:
    """A server, and what is in flight there."""

    engine: ServedEngine
    prepare: Callable[[], None] = lambda: None
    """Called before it is greeted: loads an adapter there."""
    problem: Callable[[], ModelError | None] = lambda: None
    """Returns why its process has ended, if this process has started it; else None."""
    tasks: set[asyncio.Task[Completion]] = field(default_factory=set)
    """Its requests in flight."""
    error: ModelError | None = None
    """Why it is left out."""


class ManyServers:
    """Asks servers that hold the same model.

    Args:
        connect: Returns the servers, and starts them if need be; called once, when the model is first needed.
        check: Raises if a server holds another model.
        batch_size: Largest number of requests in flight at each server.
    """

    def __init__(
        self, connect: Callable[[], Sequence[Server]], check: Callable[[ServedEngine], None], batch_size: int
    ) -> None:
        self._connect, self._check = connect, check
        self.batch_size, self.batch_tokens = batch_size, 0
        self.on_finished: Callable[[int], None] = lambda _: None
        self._servers: Sequence[Server] = ()

    def ready(self) -> Renderer:
        """Greet the servers, if that was not done, and check that each holds the model.

        Raises:
            ModelError: none answers; or one takes text instead of token ids, or holds another model or tokenizer.
        """
        if not self._servers:
            servers = self._connect()
            for server in servers:
                try:
                    server.prepare()
                    server.engine.ready()
                    _need_token_ids(server.engine)
                    self._check(server.engine)
                except UnreachableError as error:
                    self._leave_out(server, error, servers)
            self._servers = servers
        return self._alive()[0].engine.ready()

    def context(self) -> int | None:
        """Return None: a server itself refuses prompts that are too long."""
        return None

    def in_flight(self) -> int:
        """Return how many requests are useful at once."""
        return self.batch_size * max(1, len([server for server in self._servers if server.error is None]))

    async def complete(self, request: Request) -> Completion:
        """Continue one prompt; see `Engine.complete`."""
        self.ready()
        while True:
            server = min(self._alive(), key=lambda server: len(server.tasks))
            server.engine.batch_size = self.batch_size
            completion = await self._ask(server, request)
            if completion is not None:
                self.on_finished(1)
                return completion

    async def close(self) -> None:
        """Close the connections."""
        for server in self._servers:
            await server.engine.close()

    async def _ask(self, server: Server, request: Request) -> Completion | None:
        """Ask one server; None if it is left out before it answers.

        Raises:
            UnansweredError: it refuses this prompt.
            ModelError: it was the last one.
        """
        task = asyncio.ensure_future(server.engine.complete(request))
        server.tasks.add(task)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=_LOOK_S)
                if not task.done() and (ended := server.problem()):
                    raise ended
            return None if task.cancelled() else task.result()  # cancelled where another request has failed
        except UnansweredError:
            raise
        except ModelError as error:
            self._leave_out(server, server.problem() or error, self._servers)
            return None
        finally:
            task.cancel()
            server.tasks.discard(task)

    def _leave_out(self, server: Server, error: ModelError, servers: Sequence[Server]) -> None:
        """Leave a server out, and drop its requests.

        Raises:
            ModelError: none is left.
        """
        if server.error is None:
            server.error = error
            for task in server.tasks:
                task.cancel()
            if any(other.error is None for other in servers):
                line = f"{error.problem} It is left out, and its prompts are asked elsewhere."
                console.print(Text(f"  {line}"), soft_wrap=True)
        if all(other.error is not None for other in servers):
            raise server.error

    def _alive(self) -> list[Server]:
        """Return the servers that are not left out; there is one, or the last one's error was raised.

        Raises:
            ModelError: another request found that none is left.
        """
        alive = [server for server in self._servers if server.error is None]
        if not alive:
            raise next(server.error for server in self._servers if server.error is not None)
        return alive


def _need_token_ids(engine: ServedEngine) -> None:
    """Check that a server takes token ids: only then are its prompts those of this process.

    Raises:
        ModelError: it takes text.
    """
    if engine.dialect is not Dialect.IDS:
        raise ModelError(
            f"{engine.served.url} takes text, and `engine` asks in token ids.", "Serve the model with vLLM."
        )
