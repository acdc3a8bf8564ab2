"""Decoding in this process: in batches by our loop (`engine`), or on a GPU continuously (`paged`).

For the loop requests wait in a queue while a batch decodes. Each batch takes the longest waiting prompts, so that the
slowest comes first and padding stays small, as many as fit: rows × (longest prompt + new tokens) is what the key-value
cache may come to hold. A paged cache holds as many tokens, and takes prompts as they come.
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
"""Wait before the first batch of a burst, so that it can be filled; and between two looks at a paged cache in use."""


class _Waiting(NamedTuple):
    request: Request
    result: asyncio.Future[Completion]


class LocalEngine:
    """Decodes in this process.

    Args:
        load: Gives the model; called again for every batch, so it must remember it.
        batch_size: Rows decoded together, at most.
        batch_tokens: Tokens that a batch's cache may hold; one row is decoded however long it is.
    """

    def __init__(self, load: Callable[[], LoadedModel], batch_size: int, batch_tokens: int) -> None:
        self._load, self.batch_size, self.batch_tokens = load, batch_size, batch_tokens
        self.on_finished: Callable[[int], None] = lambda _: None
        self._waiting: list[_Waiting] = []
        self._pump: asyncio.Task[None] | None = None
        self._paged: PagedDecoder | None = None
        self._num_paged = 0

    def ready(self) -> Renderer:
        return self._load().renderer

    def context(self) -> int | None:
        return context_length(self._load().model.config)

    def in_flight(self) -> int:
        return self.batch_size * 8  # enough that a batch can be chosen by length

    async def complete(self, request: Request) -> Completion:
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
        pass

    async def _decode_paged(self, request: Request) -> Generation:
        """One paged cache at a time, for one way of sampling, for as long as there is something to decode."""
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
        await asyncio.sleep(_GATHER_S)
        try:
            while batch := self._take_batch():
                try:
                    completions = await asyncio.to_thread(self._decode, [each.request for each in batch])
                except Exception as error:
                    for each in batch:
                        if not each.result.done():
                            each.result.set_exception(error)
                    continue
                for each, completion in zip(batch, completions, strict=True):
                    if not each.result.done():
                        each.result.set_result(completion)
                await asyncio.sleep(0)
        finally:
            self._pump = None

    def _take_batch(self) -> list[_Waiting]:
        waiting = [each for each in self._waiting if not each.result.done()]  # none that was cancelled
        chosen = choose_batch([each.request for each in waiting], self.batch_size, self.batch_tokens)
        self._waiting = [each for index, each in enumerate(waiting) if index not in set(chosen)]
        return [waiting[index] for index in chosen]

    def _decode(self, batch: list[Request]) -> list[Completion]:
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
    """Which waiting requests to decode next: the longest prompts that share settings, as many as fit.

    Args:
        requests: What waits.
        max_rows: Rows of a batch, at most.
        max_tokens: Bound on rows × (longest prompt + new tokens). The longest prompt is taken even if it alone is over.

    Returns:
        Indices into `requests`, the longest prompt first; equal lengths by seed, so that no arrival order shows.
    """
    by_length = sorted(range(len(requests)), key=lambda i: (len(requests[i].ids), requests[i].seed), reverse=True)
    if not by_length:
        return []
    first = requests[by_length[0]]
    rows = max(1, min(max_rows, max_tokens // (len(first.ids) + first.max_tokens)))
    settings = (first.max_tokens, first.sampling)
    return [i for i in by_length if (requests[i].max_tokens, requests[i].sampling) == settings][:rows]
