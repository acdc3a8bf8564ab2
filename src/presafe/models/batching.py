"""Decode in this process: in batches with our own loop (`engine`), or continuously on a GPU (`paged`).

With the loop, requests wait in a queue. The longest waiting prompts start first, so that padding stays small; prompts
that begin alike start together. As rows end, the next prompts take their places. As many rows are decoded as fit: the
key-value cache can grow to rows × (longest prompt + new tokens). A paged cache holds the same number of tokens, and
takes prompts as they come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from presafe.models.context import context_length
from presafe.models.exchange import Completion, Request
from presafe.models.loading import LoadedModel
from presafe.models.rendering import Renderer

TURNOVER = 8
"""Places are filled or dropped once they are 1/8 of the rows: one at a time costs more than it saves. Ours."""

if TYPE_CHECKING:
    from presafe.models.engine import Finished, Generation
    from presafe.models.paged import PagedDecoder

_GATHER_S = 0.05
"""Seconds to wait before the first batch, so that it can fill, and between two checks of a paged cache in use."""


class _Waiting(NamedTuple):
    """A request and the future that its completion goes to."""

    request: Request
    result: asyncio.Future[Completion]


class LocalEngine:
    """Decodes in this process.

    Args:
        load: Returns the model; it is called often, so it must keep it.
        batch_size: Largest number of rows decoded together.
        batch_tokens: Largest number of tokens in a batch's cache; a single row may have more.
    """

    def __init__(self, load: Callable[[], LoadedModel], batch_size: int, batch_tokens: int) -> None:
        self._load, self.batch_size, self.batch_tokens = load, batch_size, batch_tokens
        self.on_finished: Callable[[int], None] = lambda _: None
        self._waiting: list[_Waiting] = []
        self._lock = Lock()
        """Protects `_waiting`, from which the decoding thread takes."""
        self._pump: asyncio.Task[None] | None = None
        self._paged: PagedDecoder | None = None
        self._num_paged = 0

    def ready(self) -> Renderer:
        """Load the model, if it is not loaded; see `Engine.ready`."""
        return self._load().renderer

    def loaded(self) -> LoadedModel:
        """Return the model; it is loaded if it is not."""
        return self._load()

    def context(self) -> int | None:
        """Return the model's context in tokens; see `Engine.context`."""
        return context_length(self._load().model.config)

    def in_flight(self) -> int:
        """Return how many requests are useful at once."""
        return self.batch_size * 8  # enough that a batch can be chosen by length

    async def complete(self, request: Request) -> Completion:
        """Continue one prompt; see `Engine.complete`."""
        from presafe.models.cache import can_page

        model, renderer = self._load()
        if can_page(model, len(request.ids) + request.max_tokens, self.batch_tokens):
            completion = _completion(renderer, await self._decode_paged(request))
            self.on_finished(1)
            return completion
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        with self._lock:
            self._waiting.append(waiting)
        if self._pump is None:
            self._pump = asyncio.create_task(self._decode_waiting())
        return await waiting.result

    async def close(self) -> None:
        """Do nothing: there is no connection to close."""

    async def _decode_paged(self, request: Request) -> Generation:
        """Decode with a paged cache: one at a time, for one kind of sampling, closed when no prompt is left."""
        from presafe.models.paged import PagedDecoder

        while self._paged is not None and self._paged.sampling != request.sampling:
            await asyncio.sleep(_GATHER_S)
        if self._paged is None:
            model, renderer = self._load()
            self._paged = PagedDecoder(model, renderer.stop_ids(), request.sampling, self.batch_size, self.batch_tokens)
        self._num_paged += 1
        try:
            return await self._paged.complete(request)
        finally:
            self._num_paged -= 1
            if not self._num_paged:
                self._paged.close()
                self._paged = None

    async def _decode_waiting(self) -> None:
        """Decode waiting requests until none is left."""
        await asyncio.sleep(_GATHER_S)
        try:
            while batch := self._take([]):
                try:
                    await asyncio.to_thread(self._decode, batch, asyncio.get_running_loop())
                except Exception as error:
                    for waiting in batch:
                        if not waiting.result.done():
                            waiting.result.set_exception(error)
                await asyncio.sleep(0)
        finally:
            self._pump = None

    def _decode(self, taken: list[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        """Decode requests with the same sampling until none waits, and hand each completion to its request.

        Args:
            taken: The requests to start with; those that are taken from the queue later are added.
            loop: The event loop of the requests.
        """
        from presafe.models.engine import decode

        model, renderer = self._load()

        def take(running: Sequence[Request]) -> list[Request]:
            new = self._take(running)
            taken.extend(new)
            return [waiting.request for waiting in new]

        def finish(finished: Sequence[Finished]) -> None:
            self.on_finished(len(finished))
            for number, generation in finished:
                loop.call_soon_threadsafe(_hand_over, taken[number], _completion(renderer, generation))

        decode(model, renderer.stop_ids(), [waiting.request for waiting in taken], take, finish)

    def _take(self, running: Sequence[Request]) -> list[_Waiting]:
        """Take the requests from the queue that are decoded next, beside those that are running (`choose_next`)."""
        with self._lock:
            queue = [waiting for waiting in self._waiting if not waiting.result.done()]  # without cancelled requests
            chosen = choose_next([waiting.request for waiting in queue], running, self.batch_size, self.batch_tokens)
            taken = set(chosen)
            self._waiting = [waiting for index, waiting in enumerate(queue) if index not in taken]
        return [queue[index] for index in chosen]


def _hand_over(waiting: _Waiting, completion: Completion) -> None:
    if not waiting.result.done():  # it may have been cancelled
        waiting.result.set_result(completion)


def _completion(renderer: Renderer, generation: Generation) -> Completion:
    text, num_tokens = renderer.tokenizer.decode(generation.ids), len(generation.ids)
    return Completion(text, num_tokens, generation.stopped, tuple(generation.ids))


def choose_next(waiting: Sequence[Request], running: Sequence[Request], max_rows: int, max_tokens: int) -> list[int]:
    """Choose which waiting requests to decode next: the longest prompts with the same sampling, as many as fit.

    Args:
        waiting: The waiting requests.
        running: The requests that are being decoded.
        max_rows: Largest number of rows.
        max_tokens: Bound on rows × (prompt + new tokens of the largest row). If nothing is running, the longest prompt
            is taken even if it is above the bound.

    Returns:
        Indices into `waiting`, the longest prompt first, each followed by those that it begins with. Equal lengths are
        ordered by their tokens and seeds, so that the order of arrival does not matter. Empty while few places are
        free: prompts are read several at a time.
    """
    if not waiting or (running and (max_rows - len(running)) * TURNOVER < max_rows):
        return []
    order = _by_length(waiting)
    sampling = running[0].sampling if running else waiting[order[0]].sampling
    largest = max((len(request.ids) + request.max_tokens for request in running), default=0)
    chosen: list[int] = []
    for index in order:
        request = waiting[index]
        if request.sampling != sampling:
            continue
        new_largest = max(largest, len(request.ids) + request.max_tokens)
        rows = len(running) + len(chosen) + 1
        if rows > 1 and (rows > max_rows or rows * new_largest > max_tokens):
            break
        largest = new_largest
        chosen.append(index)
    return chosen


def _by_length(waiting: Sequence[Request]) -> list[int]:
    """Return the indices of requests by falling length; a prompt with which another begins comes right after it."""
    by_tokens = sorted(range(len(waiting)), key=lambda index: (waiting[index].ids, waiting[index].seed), reverse=True)
    groups: list[list[int]] = []
    for index in by_tokens:  # a prompt comes after all those that begin with it
        ids = waiting[index].ids
        if groups and waiting[groups[-1][0]].ids[: len(ids)] == ids:
            groups[-1].append(index)
        else:
            groups.append([index])
    groups.sort(key=lambda group: len(waiting[group[0]].ids), reverse=True)
    return [index for group in groups for index in group]
