"""A small training: settings, rows, and a trainer that takes the GPU's path to L_SFT."""

from __future__ import annotations

import random
from typing import Any

from presafe.alignment.rows import AlignmentRow
from presafe.alignment.trainer import PreSafeTrainer
from presafe.config.recipe import AlignSettings

SETTINGS = AlignSettings(
    max_steps=6,
    batch_size=2,
    accumulation=2,
    learning_rate=1e-2,
    warmup_steps=2,
    lora_rank=8,
    lora_alpha=16,
    lora_targets=("q_proj", "v_proj"),
    save_steps=1,
)


def fit_rows() -> list[AlignmentRow]:
    """Return ten rows of 6 to 15 tokens; the first half refuses."""
    rng = random.Random(0)
    rows = []
    for i in range(10):
        prompt = [rng.randrange(20, 120) for _ in range(4 + i % 5)]
        completion = [rng.randrange(120, 220) for _ in range(2 + i // 2)]
        rows.append(
            AlignmentRow(
                prompt_id=str(i),
                input_ids=prompt + completion,
                labels=[-100] * len(prompt) + completion,
                decision_index=len(prompt) - 1,
                start_index=len(prompt) - 1,
                signal=0.9 if i < 5 else 0.2,
            )
        )
    return rows


class FusedLoss(PreSafeTrainer):
    """Computes L_SFT on TRL's own path, as on a GPU."""

    def _sft_loss(self, model: Any, inputs: Any, return_outputs: Any, num_items: Any) -> Any:
        return super(PreSafeTrainer, self).compute_loss(model, inputs, return_outputs, num_items)
