"""Decision scores: one forward pass of PreSafe against `output_hidden_states=True`.

The plain way takes the prompts in the order of arrival, asks the model for all logits and all hidden states, and reads
the logits of the decision position from them. The scores are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sides import OURS, Sizes, against, in_turns, say, timed
from work import mixed_texts, smolthink

from presafe.alignment.rows import refusal_start
from presafe.internals.decision import decision_scores
from presafe.models.decision_head import RefusalStart
from presafe.models.loading import LoadedModel

ROWS = 32


def measure(sizes: Sizes) -> list[dict[str, Any]]:
    """Return the row of the record."""
    loaded = smolthink(sizes)
    texts = mixed_texts(sizes.pick(96, 6))
    start = refusal_start(loaded.renderer, "direct")
    say(f"decision scores of {len(texts)} prompts")
    mine = [score.weakest_logit for score in decision_scores(loaded, texts, start, None, batch_size=ROWS)]
    theirs = _plain(loaded, texts, start)
    values = in_turns(
        {
            OURS: timed(lambda: decision_scores(loaded, texts, start, None, batch_size=ROWS)),
            "output_hidden_states": timed(lambda: _plain(loaded, texts, start)),
        },
        sizes.repeats,
        warm_up=False,
    )
    row = against("decision scores", "seconds", values["seconds"], {})
    return [row | {"largest_difference": max(abs(one - other) for one, other in zip(mine, theirs, strict=True))}]


def _plain(loaded: LoadedModel, texts: Sequence[str], start: RefusalStart) -> list[float]:
    """Return the log-odds of the least likely token of a refusal's start, per prompt."""
    opening = loaded.renderer.opening_ids() + list(start.shared)
    prompts = [loaded.renderer.render(text, "on").ids + opening for text in texts]
    first = len(loaded.renderer.opening_ids())
    scores = []
    for begin in range(0, len(prompts), ROWS):
        batch = prompts[begin : begin + ROWS]
        width = max(map(len, batch))
        ids = torch.tensor([prompt + [0] * (width - len(prompt)) for prompt in batch])
        mask = torch.tensor([[1] * len(prompt) + [0] * (width - len(prompt)) for prompt in batch])
        with torch.inference_mode():
            out = loaded.model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        for row, prompt in enumerate(batch):
            decision = len(prompt) - len(opening) - 1 + first
            odds = []
            for step, tokens in enumerate(start.links):
                logits = out.logits[row, decision + step].double()
                chosen = logits[list(tokens)].logsumexp(-1)
                logits[list(tokens)] = -torch.inf
                odds.append(float(chosen - logits.logsumexp(-1)))
            scores.append(min(odds))
    return scores
