"""The decision before the CoT as a monitor: one forward pass a prompt, no sampling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from presafe.evaluation.decision import decision_scores
from presafe.models.address import need_weights
from presafe.models.context import check_context, context_length
from presafe.models.decision_head import DecisionHead, RefusalStart
from presafe.models.loading import load_model
from presafe.recipe import ModelSettings
from presafe.records import Prompt


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
    loaded = load_model(model.address, adapter=folder / "adapter", family=model.family, dtype=model.dtype)
    prompts = [
        Prompt(id=str(number), text=text, category="none", split="none", licence="none", expect="comply")
        for number, text in enumerate(texts)
    ]
    check_context(
        {"these prompts": prompts},
        lambda text: loaded.renderer.render(text, "on").ids,
        max_tokens=0,
        context=context_length(loaded.model.config),
    )
    scores = decision_scores(loaded, prompts, RefusalStart((), frozenset({0})), head)  # of which the head knows nothing
    return [score.head_probability for score in scores if score.head_probability is not None]
