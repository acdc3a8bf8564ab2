"""The decision position in one forward pass a prompt: no sampling, no threshold, no judge.

refusal logit        ln P(r) − ln(1 − P(r)), with r what a refusal starts with, up to its first word: the model's own
                     log-odds of declining at once
weakest logit        the same of that one of r's tokens that is least likely; above 0, greedy decoding declines at once
head probability     σ(φ(h)), the auxiliary head's decision, for systems that have one

r is several tokens: a direct refusal closes the thought, and only then comes its first word; one with a thought begins
with the words that all such thoughts share. A model may close the thought before every prompt and decide afterwards,
or begin every thought with "I", so that its first token alone says little of what it will do.

The head reads the position and layer that it was trained at. One that was trained at the thought's first token saw the
target's there; here it is the token that the model itself finds most likely, in a second pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from presafe.evaluation.forward import batches
from presafe.models.decision_head import DecisionHead, RefusalStart, read_states, start_log_odds, states_at
from presafe.models.loading import LoadedModel
from presafe.records import Prompt


class DecisionScore(NamedTuple):
    """One prompt at the decision position."""

    refusal_logit: float
    weakest_logit: float
    head_probability: float | None


def decision_scores(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    start: RefusalStart,
    head: DecisionHead | None,
    *,
    batch_size: int = 32,
    on_finished: Callable[[int], None] = lambda _: None,
) -> list[DecisionScore]:
    """Score prompts with CoT on.

    Args:
        loaded: The model, its adapter merged.
        prompts: What is asked.
        start: What this model's refusals start with.
        head: The auxiliary head of an aligned system, or None.
        batch_size: Rows a forward pass.
        on_finished: Told how many prompts each forward pass finished.

    Returns:
        One score a prompt, in order.
    """
    import torch
    from torch.nn.functional import logsigmoid, pad

    rendered = [loaded.renderer.render(prompt.text, "on") for prompt in prompts]
    opening = loaded.renderer.opening_ids()
    sequences = [each.ids + opening + list(start.shared) for each in rendered]
    scores: dict[int, DecisionScore] = {}
    decoder, lm_head = loaded.model.base_model, loaded.model.get_output_embeddings()
    if head is not None:
        head.need_fit(loaded.model)
    layer = None if head is None else head.layer
    asked: dict[str, Any] = {"use_cache": False, "output_hidden_states": layer is not None}
    with torch.inference_mode():
        steps = torch.arange(len(start.links), device=loaded.model.device)
        for indices, ids, mask in batches(sequences, batch_size, loaded.model.device):
            where = torch.tensor([rendered[index].decision_index for index in indices], device=ids.device)
            rows, thought = torch.arange(len(indices), device=ids.device), where + len(opening) + 1
            output = decoder(input_ids=ids, attention_mask=mask, **asked)
            words = lm_head(output.last_hidden_state[rows[:, None], thought[:, None] - 1 + steps]).double()
            links = torch.stack([start_log_odds(words[:, i], tokens) for i, tokens in enumerate(start.links)])
            certain = logsigmoid(links).sum(0)  # ln P(r)
            logits = certain - (-torch.expm1(certain)).log()
            chances = [None] * len(indices)
            if head is not None:
                if head.position == "thought_start":
                    ids, mask = pad(ids, (0, 1)), pad(mask, (0, 1))
                    ids[rows, thought], mask[rows, thought] = words[:, 0].argmax(-1), 1
                    output = decoder(input_ids=ids, attention_mask=mask, **asked)
                chances = head.probability(
                    read_states(states_at(output, layer), head.position, where, thought)
                ).tolist()
            for row, index in enumerate(indices):
                scores[index] = DecisionScore(float(logits[row]), float(links[:, row].min()), chances[row])
            on_finished(len(indices))
    return [scores[index] for index in range(len(prompts))]
