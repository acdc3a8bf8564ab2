"""Decode in this process: in batches with our own loop (`engine`), or continuously on a GPU (`paged`).

With the loop, requests wait in a queue while a batch is decoded. Each batch takes the longest waiting prompts, so that
the slowest rows start first and padding stays small. It takes as many as fit: the key-value cache can grow to
rows × (longest prompt + new tokens). A paged cache holds the same number of tokens, and takes prompts as they come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from presafe.models.context import context_length
from presafe.models.exchange import Completion, Request
from presafe.models.loading import LoadedModel
from presafe.models.rendering import Renderer

if TYPE_CHECKING:
    from presafe.models.engine import Generation
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
        load: Returns the model; it is called for each batch, so it must keep it.
        batch_size: Largest number of rows decoded together.
        batch_tokens: Largest number of tokens in a batch's cache; a single row may have more.
    """

    def __init__(self, load: Callable[[], LoadedModel], batch_size: int, batch_tokens: int) -> None:
        self._load, self.batch_size, self.batch_tokens = load, batch_size, batch_tokens
        self.on_finished: Callable[[int], None] = lambda _: None
        self._waiting: list[_Waiting] = []
        self._pump: asyncio.Task[None] | None = None
        self._paged: PagedDecoder | None = None
        self._num_paged = 0

    def ready(self) -> Renderer:
        """Load the model, if it is not loaded; see `Engine.ready`."""
        return self._load().renderer

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
        """Decode waiting requests batch by batch until none is left."""
        await asyncio.sleep(_GATHER_S)
        try:
            while batch := self._take_batch():
                try:
                    completions = await asyncio.to_thread(self._decode, [waiting.request for waiting in batch])
                except Exception as error:
                    for waiting in batch:
                        if not waiting.result.done():
                            waiting.result.set_exception(error)
                    continue
                for waiting, completion in zip(batch, completions, strict=True):
                    if not waiting.result.done():
                        waiting.result.set_result(completion)
                await asyncio.sleep(0)
        finally:
            self._pump = None

    def _take_batch(self) -> list[_Waiting]:
        """Take the requests of the next batch from the queue."""
        queue = [waiting for waiting in self._waiting if not waiting.result.done()]  # without cancelled requests
        chosen = choose_batch([waiting.request for waiting in queue], self.batch_size, self.batch_tokens)
        self._waiting = [waiting for index, waiting in enumerate(queue) if index not in set(chosen)]
        return [queue[index] for index in chosen]

    def _decode(self, batch: list[Request]) -> list[Completion]:
        """Decode one batch, whose requests have the same budget and sampling."""
        from presafe.models.engine import generate_batch

        model, renderer = self._load()
        generations = generate_batch(
            model,
            [request.ids for request in batch],
            max_new_tokens=batch[0].max_tokens,
            stop_ids=renderer.stop_ids(),
            sampling=batch[0].sampling,
            seeds=[request.seed for request in batch],
            on_finished=self.on_finished,
        )
        return [_completion(renderer, generation) for generation in generations]


def _completion(renderer: Renderer, generation: Generation) -> Completion:
    return Completion(renderer.tokenizer.decode(generation.ids), len(generation.ids), generation.stopped)


def choose_batch(requests: list[Request], max_rows: int, max_tokens: int) -> list[int]:
    """Choose which waiting requests to decode next: the longest prompts with the same settings, as many as fit.

    Args:
        requests: The waiting requests.
        max_rows: Largest number of rows in a batch.
        max_tokens: Bound on rows × (longest prompt + new tokens). The longest prompt is taken even if it is above it.

    Returns:
        Indices into `requests`, the longest prompt first. Equal lengths are ordered by seed, so that the order of
        arrival does not matter.
    """
    by_length = sorted(range(len(requests)), key=lambda i: (len(requests[i].ids), requests[i].seed), reverse=True)
    if not by_length:
        return []
    first = requests[by_length[0]]
    rows = max(1, min(max_rows, max_tokens // (len(first.ids) + first.max_tokens)))
    settings = (first.max_tokens, first.sampling)
    return [i for i in by_length if (requests[i].max_tokens, requests[i].sampling) == settings][:rows]
