"""Decode continuously on a GPU, through transformers: a waiting prompt takes the place of a row that has finished.

Keys and values are kept in pages, so that no row is padded and no row waits for another. transformers has one random
state for all rows, so a draw would depend on the other rows. Therefore a logits processor of ours draws, as our loop
does (`draw`): by a hash of the prompt's seed, the position and the token. It leaves one token, which transformers'
greedy choice takes. The draw does not depend on when a prompt arrived, on the other prompts, or on a prompt that was
paused and read again.
"""

from __future__ import annotations

import asyncio
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
from presafe.models.draw import draw, key_of
from presafe.models.engine import Generation
from presafe.models.exchange import Request
from presafe.models.family import Sampling

_STEP_TOKENS = 1024
"""Smallest token budget of one forward pass, for prompts that are read beside rows that are decoded. It is not larger,
because without FlashAttention each token is masked against the whole cache. Ours.
"""
_POLL_S = 1.0
"""Polling interval (s) for pending requests."""


class PagedDecoder:
    """A model with a paged cache, open until `close`, for prompts that are sampled with the same settings.

    Args:
        model: A causal language model in eval mode.
        stop_ids: Ids of the tokens that end a row.
        sampling: How tokens are drawn.
        batch_size: Largest number of rows decoded together.
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
                auto_switch_to_flash=model.dtype == torch.bfloat16,  # if it is installed; it has no float32
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
            ModelError: transformers stopped, for example because memory was short.
        """
        name, result = next(self._names), asyncio.get_running_loop().create_future()

        def finish(output: Any) -> None:
            if not result.done():  # it may have been cancelled
                result.set_result(output)

        self._manager.register_result_handler(name, finish)
        seed = {"seed": request.seed} if not self.sampling.is_greedy else {}
        is_accepted = self._manager.add_request(
            request.ids, request_id=name, max_new_tokens=request.max_tokens, eos_token_id=self._stop_ids, **seed
        )
        try:
            output = await self._wait_for(result) if is_accepted else None
        except asyncio.CancelledError:
            self._manager.cancel_request(name)
            raise
        if output is None or output.error:
            raise ModelError(
                f"continuous batching ended: {output.error if output else 'it takes no more prompts'}.",
                "If memory is short, lower `batch_tokens`.",
            )
        return Generation(output.generated_tokens, output.generated_tokens[-1] in self._stop_ids)

    async def _wait_for(self, result: asyncio.Future[Any]) -> Any:
        """Return the output of a prompt, or None if decoding ended just before the prompt was queued."""
        is_running = True
        while is_running and not result.done():
            is_running = self._manager.is_running()
            await asyncio.wait([result], timeout=_POLL_S)
        return result.result() if result.done() else None

    def close(self) -> None:
        """Free the cache; prompts that are still being decoded are lost."""
        self._manager.stop(hard_stop=True)


class SeededDraw(ContinuousBatchingLogitsProcessor):
    """Keeps in each row only the token that its prompt's seed draws."""

    supported_kwargs = {"seed": int}  # noqa: RUF012  transformers' own signature
    ignored_kwargs = ()

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        """Set the keys of the rows that only fill a shape to 0."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> Tensor:
        """Return the key of each row."""
        states = [request.state for request in requests_with_new_token]
        # `position_offset` counts the tokens before the one that is drawn, even if a row was paused.
        keys = [key_of(state.logit_processor_kwargs["seed"], state.position_offset) for state in states]
        return torch.tensor(keys, dtype=torch.int32)

    def __call__(self, scores: Tensor, tensor_arg: Tensor) -> Tensor:
        """Return scores of shape (rows, vocabulary): 0 for the drawn token, minus infinity for all others."""
        picks = draw(scores, self._sampling, tensor_arg[: len(scores)])
        return torch.full_like(scores, -torch.inf).scatter(-1, picks[:, None], 0.0)
