"""Fine-tune an adapter on affirmative starts, in memory, to see how fast its refusals go.

    rows     harmless requests, CoT on, each with an empty, closed thought and "Sure, here is"
    loss     −ln P of these tokens, on average; nothing after them is trained
    step     AdamW on the adapter's own weights, for some rows

No harmful request and no answer is in the rows: what is learned is to begin without a decision. The first n steps are
the same however many follow.

Source: the attack: Qi et al., arXiv 2310.03693; rows: ours.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any

from presafe.attacks.suffix import ANSWER
from presafe.errors import ModelError
from presafe.internals.searching import CostReader
from presafe.models.loading import LoadedModel

_ROWS = 8
"""Rows of a step. Ours."""


@contextmanager
def finetuned(
    adapted: Any, loaded: LoadedModel, texts: Sequence[str], steps: int, learning_rate: float
) -> Iterator[list[float]]:
    """Fine-tune a model's adapter for a while; afterwards its weights are as before, bit for bit.

    Args:
        adapted: The PEFT model.
        loaded: The base model inside it, whose layers carry the adapter, and its renderer.
        texts: Harmless requests.
        steps: Optimizer steps, at least 0.
        learning_rate: Of AdamW.

    Yields:
        The loss before each step, in nats a token.

    Raises:
        ModelError: the loss is not finite.
    """
    import torch

    weights = [weight for name, weight in adapted.named_parameters() if ".default" in name]
    before = [weight.detach().clone() for weight in weights]
    reader, losses = CostReader(loaded), list[float]()
    order = list(texts)
    random.Random(0).shuffle(order)
    rows = cycle(order)
    try:
        for weight in weights:
            weight.requires_grad_(True)
        optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0)
        for step in range(steps):
            loss = reader.begin_costs(list(islice(rows, _ROWS)), ANSWER).mean()
            losses.append(float(loss.detach()))
            if not torch.isfinite(loss):
                raise ModelError(f"fine-tuning diverged at step {step + 1}.", "Lower `learning_rate`.")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        for weight in weights:
            weight.requires_grad_(False)
        yield losses
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.requires_grad_(False)
                weight.grad = None
                weight.copy_(value)
