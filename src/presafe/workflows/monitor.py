"""The decision before the CoT as a monitor: one forward pass per prompt, no sampling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from presafe.alignment.rows import refusal_start
from presafe.config.recipe import ModelSettings
from presafe.internals.decision import head_probabilities
from presafe.models.address import need_weights, raw_server
from presafe.models.context import check_context, context_length
from presafe.models.decision_head import DecisionHead
from presafe.models.loading import load_model, load_renderer
from presafe.models.served_decision import ServedDecision, served_decisions


def score_prompts(model: ModelSettings, texts: Sequence[str], head: DecisionHead, folder: Path) -> list[float]:
    """Return the head's probability of a refusal, p = σ(φ(h)) in [0, 1], for each text.

    Args:
        model: The model that was aligned.
        texts: Prompts of users.
        head: The exported head.
        folder: Folder of the aligned system; the head was trained with the adapter in its `adapter/`.

    Raises:
        ModelError: no such model or adapter, or the head has another width than the model.
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


def score_served(model: ModelSettings, texts: Sequence[str]) -> list[ServedDecision]:
    """Return what a server says about each text before the thought, and how that was read.

    Args:
        model: A served model that takes raw prompts.
        texts: Prompts of users.

    Raises:
        ModelError: no such server or tokenizer, or a server that does not show the decision.
    """
    served = raw_server(model.address)
    renderer = load_renderer(model.address, model.family, model.tokenizer, trust_remote_code=model.trust_remote_code)
    return served_decisions(served, renderer, texts, refusal_start(renderer, "direct"))
