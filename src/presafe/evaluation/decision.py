"""The decision position in one forward pass a prompt: no sampling, no threshold, no judge.

refusal logit        ln P(r) − ln(1 − P(r)), with r the token a refusal starts with: the model's own log-odds of
                     declining as its next token
head probability     σ(φ(h)), the auxiliary head's decision, for systems that have one
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from presafe.models.decision_head import DecisionHead, start_log_odds
from presafe.models.loading import LoadedModel
from presafe.records import Prompt


class DecisionScore(NamedTuple):
    """One prompt at the decision position."""

    refusal_logit: float
    head_probability: float | None


def decision_scores(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    refusal_start: int,
    head: DecisionHead | None,
    *,
    batch_size: int = 32,
    on_finished: Callable[[int], None] = lambda _: None,
) -> list[DecisionScore]:
    """Score prompts with CoT on.

    Args:
        loaded: The model, its adapter merged.
        prompts: What is asked.
        refusal_start: Id of the token with which this model's refusals start.
        head: The auxiliary head of an aligned system, or None.
        batch_size: Rows a forward pass.
        on_finished: Told how many prompts each forward pass finished.

    Returns:
        One score a prompt, in order.
    """
    import torch

    rendered = [loaded.renderer.render(prompt.text, "on") for prompt in prompts]
    opening = loaded.renderer.opening_ids()
    sequences = [prompt.ids + opening for prompt in rendered]
    by_length = sorted(range(len(prompts)), key=lambda index: len(sequences[index]))
    scores: dict[int, DecisionScore] = {}
    decoder, lm_head = loaded.model.base_model, loaded.model.get_output_embeddings()
    with torch.inference_mode():
        for start in range(0, len(by_length), batch_size):
            batch = by_length[start : start + batch_size]
            width = max(len(sequences[index]) for index in batch)
            ids = torch.zeros(len(batch), width, dtype=torch.long, device=loaded.model.device)
            mask = torch.zeros_like(ids)
            for row, index in enumerate(batch):
                ids[row, : len(sequences[index])] = torch.tensor(sequences[index])
                mask[row, : len(sequences[index])] = 1
            where = torch.tensor([rendered[index].decision_index for index in batch], device=ids.device)
            states = decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            rows = torch.arange(len(batch), device=ids.device)
            hidden, before_refusal = states[rows, where], states[rows, where + len(opening)]
            logits = start_log_odds(lm_head(before_refusal).double(), refusal_start)
            chances = head.probability(hidden).tolist() if head is not None else [None] * len(batch)
            for row, index in enumerate(batch):
                scores[index] = DecisionScore(float(logits[row]), chances[row])
            on_finished(len(batch))
    return [scores[index] for index in range(len(prompts))]
