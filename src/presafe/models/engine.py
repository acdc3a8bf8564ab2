"""Decode in this process: rows that end make room at once, and waiting prompts take their places.

`transformers.generate` keeps every row of a batch until the last one stops. If answers differ much in length (a refusal
beside a worked sum), most of that work is wasted. This loop fills the places of finished rows with waiting prompts, and
drops places when nothing waits. Prompts with a common beginning (CoT on and off, several answers to one prompt) read it
once (`sharing`). A result depends on the prompt and its seed, not on the other rows (`draw`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from presafe.models.batching import TURNOVER
from presafe.models.cache import growing_cache, is_growing
from presafe.models.draw import draw, key_of
from presafe.models.exchange import Request
from presafe.models.family import Sampling
from presafe.models.sharing import share


class Generation(NamedTuple):
    """What one row wrote: its token ids with the stop token, and whether it stopped by itself."""

    ids: list[int]
    stopped: bool


class Finished(NamedTuple):
    """A finished row: its number, counted from 0 in the order in which requests were taken, and what it wrote."""

    number: int
    generation: Generation


def generate_batch(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    sampling: Sampling,
    seeds: Sequence[int],
    on_finished: Callable[[int], None] | None = None,
) -> list[Generation]:
    """Continue prompts, all of them together.

    Args:
        model: A causal language model in eval mode.
        prompts: Token ids, one non-empty sequence per row.
        max_new_tokens: Token budget per row, at least 1.
        stop_ids: Ids of the tokens that end a row.
        sampling: How tokens are drawn.
        seeds: One seed per row; not used in greedy decoding.
        on_finished: Called with the number of rows that have just finished, for a progress bar.

    Returns:
        One generation per prompt, in order.
    """
    requests = [
        Request(list(prompt), max_new_tokens, sampling, seed) for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    generations: dict[int, Generation] = {}

    def finish(finished: Sequence[Finished]) -> None:
        generations.update(finished)
        if on_finished is not None:
            on_finished(len(finished))

    decode(model, stop_ids, requests, lambda _: (), finish)
    return [generations[number] for number in range(len(prompts))]


@torch.inference_mode()
def decode(
    model: Any,
    stop_ids: Sequence[int],
    first: Sequence[Request],
    take: Callable[[Sequence[Request]], Sequence[Request]],
    finish: Callable[[Sequence[Finished]], None],
) -> None:
    """Continue prompts until none is left; all have the same sampling.

    Args:
        model: A causal language model in eval mode.
        stop_ids: Ids of the tokens that end a row.
        first: The requests to start with.
        take: Called with the requests that are running; returns those that join them.
        finish: Called with the rows that have just finished.
    """
    batch = _Batch(model, stop_ids)
    new = first
    while new or batch.running():
        if finished := batch.add(new) if new else batch.step():
            finish(finished)
        new = take(batch.running()) if batch.can_add() else ()


@dataclass(eq=False)
class _Row:
    """One place of the batch: a prompt and what it has written."""

    request: Request
    number: int
    written: list[int] = field(default_factory=list)
    is_done: bool = False


class _Batch:
    """Rows that are decoded together, their cache, and what is fed to the model next.

    All rows end at the last position of the cache; a mask hides what is before their first token.
    """

    def __init__(self, model: Any, stop_ids: Sequence[int]) -> None:
        self._model, self._stops = model, frozenset(stop_ids)
        self._rows: list[_Row] = []
        self._num_taken = 0
        self._cache = growing_cache(model.config)
        self._is_growing = is_growing(self._cache)
        # An index and not a slice: a slice of the states is not contiguous, so off the GPU torch multiplies it row by
        # row, and in bfloat16 copies the vocabulary's weights for each row.
        self._last = torch.tensor([-1], device=model.device)
        self._ids = self._positions = self._mask = torch.zeros(0, 0, dtype=torch.long, device=model.device)

    def running(self) -> list[Request]:
        """Return the requests of the rows that are not finished."""
        return [row.request for row in self._rows if not row.is_done]

    def can_add(self) -> bool:
        """Return whether prompts can join; beside layers that keep a state, only once all rows have finished."""
        return self._is_growing or not self.running()

    def add(self, requests: Sequence[Request]) -> list[Finished]:
        """Read prompts, write their first tokens, and return the rows that have finished with them."""
        new = [_Row(request, self._num_taken + index) for index, request in enumerate(requests)]
        self._num_taken += len(new)
        if not self.running():
            self._rows, self._cache = [], growing_cache(self._model.config)
        prompts = [row.request.ids for row in new]
        if not self._is_growing:
            return self._read(new, prompts, None)
        live = [row for row in self._rows if not row.is_done]
        whole, shared = share([row.request.ids for row in live], prompts)
        finished = self._read([new[index] for index in whole], [prompts[index] for index in whole], None)
        if shared:
            owners = [self._rows.index((live + new)[part.owner]) for part in shared]
            before = _Before(
                torch.tensor(owners, device=self._mask.device),
                torch.tensor([self._first(self._rows[owner]) for owner in owners], device=self._mask.device),
                torch.tensor([part.num_tokens for part in shared], device=self._mask.device),
            )
            rest = [prompts[part.prompt][part.num_tokens :] for part in shared]
            finished += self._read([new[part.prompt] for part in shared], rest, before)
        return finished

    def step(self) -> list[Finished]:
        """Write one token in each row, and return the rows that have finished."""
        self._tidy()
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._rows), 1)], dim=1)
        tokens = self._write(self._rows, self._ids, self._mask, self._positions, self._cache)
        self._ids, self._positions = tokens[:, None], self._positions + 1
        return self._note(self._rows, tokens)

    def _first(self, row: _Row) -> int:
        """Return the position of the cache at which a row's prompt begins."""
        return self._mask.shape[1] - len(row.request.ids) - max(0, len(row.written) - 1)

    def _read(self, rows: list[_Row], prompts: list[list[int]], before: _Before | None) -> list[Finished]:
        """Read prompts, or what follows their beginnings, and give them places.

        Args:
            rows: The new rows.
            prompts: The token ids to read, left-padded here; of the same length if there are beginnings.
            before: Where the cache has their beginnings; None if they are read whole.
        """
        if not rows:
            return []
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=self._model.device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=ids.device)
        cache = growing_cache(self._model.config)
        if before is not None:
            mask = torch.cat([before.copy_into(cache, self._cache), mask], dim=1)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -width:]
        tokens = self._write(rows, ids, mask, positions, cache)
        self._place(rows, mask, positions[:, -1:] + 1, tokens[:, None], cache)
        return self._note(rows, tokens)

    def _write(self, rows: list[_Row], ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """Return the next token of each row, of shape (rows,); feed `ids`, of shape (rows, new positions)."""
        logits: Tensor = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=self._last,
        ).logits[:, -1]
        sampling = rows[0].request.sampling
        if sampling.is_greedy:
            return logits.argmax(-1)
        lengths = [len(row.request.ids) + len(row.written) for row in rows]
        keys = [key_of(row.request.seed, length) for row, length in zip(rows, lengths, strict=True)]
        # On the CPU in any case: not every device has float64.
        return draw(logits.float().cpu(), sampling, torch.tensor(keys)).to(logits.device)

    def _note(self, rows: list[_Row], tokens: Tensor) -> list[Finished]:
        """Note what the rows have written, and return those that have finished."""
        finished = []
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if row.is_done:
                continue
            row.written.append(token)
            stopped = token in self._stops
            row.is_done = stopped or len(row.written) >= row.request.max_tokens
            if row.is_done:
                finished.append(Finished(row.number, Generation(row.written, stopped)))
        return finished

    def _place(self, new: list[_Row], mask: Tensor, positions: Tensor, ids: Tensor, cache: Any) -> None:
        """Give new rows the places of finished ones, and places after them where these are too few."""
        if not self._rows:
            self._rows, self._mask, self._positions, self._ids, self._cache = list(new), mask, positions, ids, cache
            return
        free = [place for place, row in enumerate(self._rows) if row.is_done][: len(new)]
        if missing := len(new) - len(free):
            free += range(len(self._rows), len(self._rows) + missing)
            self._keep([*range(len(self._rows)), *[0] * missing])
        if (wider := mask.shape[1] - self._mask.shape[1]) > 0:
            self._mask = torch.nn.functional.pad(self._mask, (wider, 0))
            for layer in self._cache.layers:
                layer.widen(wider)
        places = torch.tensor(free, device=mask.device)
        for mine, theirs in zip(self._cache.layers, cache.layers, strict=True):
            mine.place(places, theirs)
        self._mask[places] = torch.nn.functional.pad(mask, (self._mask.shape[1] - mask.shape[1], 0))
        self._positions[places], self._ids[places] = positions, ids
        for place, row in zip(free, new, strict=True):
            self._rows[place] = row

    def _tidy(self) -> None:
        """Drop the places of finished rows, if they are many, and the positions before the first token of all rows."""
        kept = [place for place, row in enumerate(self._rows) if not row.is_done]
        if (len(self._rows) - len(kept)) * TURNOVER >= len(self._rows):
            self._keep(kept)
        unused = min(
            self._first(self._rows[place]) for place in range(len(self._rows)) if not self._rows[place].is_done
        )
        if unused and self._is_growing:
            self._mask = self._mask[:, unused:]
            for layer in self._cache.layers:
                layer.drop_first(unused)

    def _keep(self, places: list[int]) -> None:
        """Keep the rows in these places, in this order."""
        if places == list(range(len(self._rows))):
            return
        index = torch.tensor(places, device=self._mask.device)
        self._cache.reorder_cache(index)  # all kinds of layer have it; `batch_select_indices` only attention
        self._ids, self._positions, self._mask = self._ids[index], self._positions[index], self._mask[index]
        self._rows = [self._rows[place] for place in places]


class _Before(NamedTuple):
    """Where the beginnings of prompts are in a cache; each of shape (prompts,)."""

    rows: Tensor
    first: Tensor
    """Position of the first token."""
    num_tokens: Tensor

    def copy_into(self, target: Any, source: Any) -> Tensor:
        """Copy the beginnings into an empty cache, left-padded, and return their mask: (prompts, positions)."""
        width = int(self.num_tokens.max())
        offsets = torch.arange(width, device=self.rows.device) - width + self.num_tokens[:, None]
        positions = self.first[:, None] + offsets.clamp(min=0)
        for empty, full in zip(target.layers, source.layers, strict=True):
            empty.update(*full.picked(self.rows, positions))
        return (offsets >= 0).long()
