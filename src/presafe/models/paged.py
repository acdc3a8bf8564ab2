"""Continuous batching on a GPU, through transformers: a waiting prompt takes the place of a row that has ended.

Keys and values lie in pages, so that no row is padded and none waits for another. transformers keeps one random state
for all rows, in which a draw would depend on the company it is made in; so the draw is a logits processor of ours:

    u(seed, t) in [0, 1)   from a hash of the prompt's seed and the position
    the token at t         the first, by falling probability, at which the mass kept by temperature, top-k and top-p
                           exceeds the share u of its total

It leaves one token, which transformers' greedy choice then takes. A row of the cache is never looked at by its number:
u does not depend on when a prompt came in, on who else is there, or on being put off and read in again. The scores do,
as far as sums in floating point are rounded, which may decide between tokens that are nearly equally likely.
"""

from __future__ import annotations

import asyncio
import hashlib
from itertools import count
from typing import Any

import torch
from torch import Tensor
from transformers import ContinuousBatchingConfig, GenerationConfig, LogitsProcessorList
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)

from presafe.errors import ModelError
from presafe.models.cache import PAGE
from presafe.models.engine import Generation, by_probability
from presafe.models.exchange import Request
from presafe.models.family import Sampling

_STEP_TOKENS = 1024
"""Tokens of one forward pass, at least: prompts that are read beside the rows that write. Without FlashAttention each
is masked against the whole cache, which is why there are no more.
"""
_LOOK_S = 1.0
"""Seconds after which a prompt that waits looks whether it is still waited for."""


class PagedDecoder:
    """A model with a paged cache, from when it is made until it is closed, for prompts that are sampled alike.

    Args:
        model: A causal language model in eval mode.
        stop_ids: Tokens that end a row.
        sampling: How tokens are drawn.
        batch_size: Rows decoded together, at most.
        batch_tokens: Tokens that the cache holds, at least one page.
    """

    def __init__(self, model: Any, stop_ids: list[int], sampling: Sampling, batch_size: int, batch_tokens: int) -> None:
        self.sampling, self._stop_ids = sampling, stop_ids
        self._names = map(str, count())
        self._manager = model.init_continuous_batching(
            GenerationConfig(do_sample=False, eos_token_id=stop_ids),
            ContinuousBatchingConfig(
                page_size=PAGE,
                num_blocks=batch_tokens // PAGE,
                max_requests_per_batch=batch_size,
                max_batch_tokens=max(_STEP_TOKENS, batch_size),
                auto_switch_to_flash=model.dtype == torch.bfloat16,  # where it is installed; it knows no float32
            ),
        )
        if not sampling.is_greedy:
            self._manager.logit_processor = ContinuousBatchingLogitsProcessorList(
                LogitsProcessorList([SeededDraw(sampling)])
            )
            self._manager.logit_processor.tensors_required = 1
        self._manager.start()

    async def complete(self, request: Request) -> Generation:
        """Continue one prompt.

        Raises:
            ModelError: transformers gave up, where memory was short, say.
        """
        name, result = next(self._names), asyncio.get_running_loop().create_future()

        def finish(found: Any) -> None:
            if not result.done():  # it was not cancelled meanwhile
                result.set_result(found)

        self._manager.register_result_handler(name, finish)
        seed = {"seed": request.seed} if not self.sampling.is_greedy else {}
        taken = self._manager.add_request(
            request.ids, request_id=name, max_new_tokens=request.max_tokens, eos_token_id=self._stop_ids, **seed
        )
        try:
            found = await self._answer(result) if taken else None
        except asyncio.CancelledError:
            self._manager.cancel_request(name)
            raise
        if found is None or found.error:
            raise ModelError(
                f"continuous batching ended: {found.error if found else 'it takes no more prompts'}.",
                "Where memory is short, lower --batch-tokens.",
            )
        return Generation(found.generated_tokens, found.generated_tokens[-1] in self._stop_ids)

    async def _answer(self, result: asyncio.Future[Any]) -> Any:
        """What came of a prompt; None where decoding ended, and emptied its queue just before the prompt came there."""
        runs = True
        while runs and not result.done():
            runs = self._manager.is_running()
            await asyncio.wait([result], timeout=_LOOK_S)
        return result.result() if result.done() else None

    def close(self) -> None:
        """Free the cache; what is still being decoded is lost."""
        self._manager.stop(hard_stop=True)


class SeededDraw(ContinuousBatchingLogitsProcessor):
    """Leaves the one token of each row that its prompt's seed draws."""

    supported_kwargs = {"seed": int}  # noqa: RUF012  transformers' own signature
    ignored_kwargs = ()

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        """u of rows that are there to fill a shape."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> Tensor:
        """u of every row, as bits: transformers hands arguments over as integers."""
        states = [each.state for each in requests_with_new_token]
        # `position_offset` counts the tokens before the one that is drawn, also after a row was put off.
        shares = [uniform(state.logit_processor_kwargs["seed"], state.position_offset) for state in states]
        return torch.tensor(shares, dtype=torch.float32).view(torch.int32)

    def __call__(self, scores: Tensor, tensor_arg: Tensor) -> Tensor:
        """Scores of shape (rows, vocabulary): 0 for the token that is drawn, else minus infinity."""
        shares = tensor_arg[: len(scores)].view(torch.float32)
        probabilities, order = by_probability(scores, self._sampling)
        mass = probabilities.cumsum(-1)
        picks = (mass > shares[:, None] * mass[:, -1:]).int().argmax(-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter(-1, order.gather(-1, picks), 0.0)


def uniform(seed: int, position: int) -> float:
    """u(seed, position): a multiple of 2⁻²⁴ in [0, 1), which a float32 holds exactly."""
    return int.from_bytes(hashlib.sha256(f"{seed} {position}".encode()).digest()[:3]) / 2.0**24
