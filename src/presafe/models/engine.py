"""Decode in batches in this process: rows of similar length together, finished rows released early.

`transformers.generate` keeps every row of a batch until the last one stops. If answers differ much in length (a refusal
beside a worked sum), most of that work is wasted, so this loop drops finished rows from the key-value cache. Each
sampled row draws from its own generator: a result depends on the prompt and its seed, not on the other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from presafe.models.cache import growing_cache
from presafe.models.family import Sampling

_RELEASE = 8
"""Finished rows are dropped once they are 1/8 of the batch: dropping each at once costs more than it saves. Ours."""


class Generation(NamedTuple):
    """What one row wrote: its token ids with the stop token, and whether it stopped by itself."""

    ids: list[int]
    stopped: bool


@torch.inference_mode()
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
    """Continue each prompt of one batch.

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
    device = model.device
    width = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long, device=device)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(prompts):
        ids[row, width - len(tokens) :] = torch.tensor(tokens, device=device)
        mask[row, width - len(tokens) :] = 1
    stops = torch.tensor(list(stop_ids), device=device)
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    written: list[list[int]] = [[] for _ in prompts]
    stopped = [False] * len(prompts)
    alive = list(range(len(prompts)))  # index of the prompt of each row in the cache
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    cache = growing_cache(model.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    # An index and not a slice: a slice of the states is not contiguous, so off the GPU torch multiplies it row by row,
    # and in bfloat16 copies the vocabulary's weights for each row.
    last = torch.tensor([-1], device=device)
    for step in range(max_new_tokens):
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=last,
        ).logits[:, -1]
        chosen = _choose(logits, sampling, [draws[prompt] for prompt in alive])
        hit = torch.isin(chosen, stops)
        for row, (prompt, token, ended) in enumerate(zip(alive, chosen.tolist(), done.tolist(), strict=True)):
            if not ended:
                written[prompt].append(token)
                stopped[prompt] = bool(hit[row])
        if on_finished is not None:
            on_finished(int((hit & ~done).sum()))
        done |= hit
        num_done = int(done.sum())
        if num_done == len(alive) or step == max_new_tokens - 1:
            if on_finished is not None:
                on_finished(len(alive) - num_done)
            break
        ids, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
        if num_done * _RELEASE >= len(alive):
            keep = (~done).nonzero().squeeze(1)
            cache.reorder_cache(keep)  # all kinds of layer have it; `batch_select_indices` only attention
            ids, positions, mask, done = ids[keep], positions[keep], mask[keep], done[keep]
            alive = [alive[row] for row in keep.tolist()]
    return [Generation(ids, by_itself) for ids, by_itself in zip(written, stopped, strict=True)]


def _choose(logits: torch.Tensor, sampling: Sampling, draws: list[torch.Generator]) -> torch.Tensor:
    """Return the next token of each row: the most likely, or one drawn after temperature, top-k and top-p."""
    if sampling.is_greedy:
        return logits.argmax(-1)
    probabilities, order = by_probability(logits.float().cpu(), sampling)
    picks = [torch.multinomial(row, 1, generator=draw) for row, draw in zip(probabilities, draws, strict=True)]
    return order.gather(-1, torch.stack(picks)).squeeze(-1).to(logits.device)


def by_probability(logits: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probabilities from which a token is drawn, the highest first.

    Args:
        logits: Shape (rows, vocabulary), in float32.
        sampling: Temperature (above 0), top-k and top-p.

    Returns:
        Probabilities after temperature and top-k, the highest first, 0 outside top-p; and the ids of their tokens.
    """
    scores, order = (logits / sampling.temperature).sort(-1, descending=True)
    if sampling.top_k:
        scores[:, sampling.top_k :] = -torch.inf
    probabilities = scores.softmax(-1)
    outside = probabilities.cumsum(-1) - probabilities >= sampling.top_p
    outside[:, 0] = False  # the most likely token is kept, however small top-p is
    return probabilities.masked_fill(outside, 0.0), order
