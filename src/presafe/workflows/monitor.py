"""The decision before the CoT as a monitor: one forward pass a prompt, no sampling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from presafe.config.recipe import ModelSettings
from presafe.internals.decision import head_probabilities
from presafe.models.address import need_weights
from presafe.models.context import check_context, context_length
from presafe.models.decision_head import DecisionHead
from presafe.models.loading import load_model


def score_prompts(model: ModelSettings, texts: Sequence[str], head: DecisionHead, folder: Path) -> list[float]:
    """p = σ(φ(h)) of each text, in [0, 1].

    Args:
        model: The model that was aligned.
        texts: What users ask.
        head: The head that was exported.
        folder: Folder of the aligned system; its `adapter/` is what the head was trained with.

    Raises:
        ModelError: no such model or adapter, or a head of another width.
        PromptError: a text does not fit the model's context.
    """
    need_weights(model.address, "reading the decision before the CoT")
    loaded = load_model(
        model.address,
        adapter=folder / "adapter",
        family=model.family,
        dtype=model.dtype,
        trust_remote_code=model.trust_remote_code,
    )
    check_context(
        {f"prompt {number}": text for number, text in enumerate(texts, start=1)},
        lambda text: loaded.renderer.render(text, "on").ids,
        max_tokens=0,
        context=context_length(loaded.model.config),
    )
    return head_probabilities(loaded, texts, head)
