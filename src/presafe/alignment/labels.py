"""The source of p′: the classifier, or its replacement in an ablation or a control."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from statistics import fmean

from presafe.methods.method import Labels
from presafe.records import Prompt, Signal

FLIPPED: Mapping[str, float] = {"flipped_10": 0.10, "flipped_25": 0.25}
"""Share of the queries whose p′ is turned round, by source of p′."""


def labels_of(prompts: Sequence[Prompt], signals: Mapping[str, Signal], labels: Labels, seed: int) -> dict[str, Signal]:
    """Return p′ of every query, by prompt id.

    Args:
        prompts: Alignment queries.
        signals: The classifier's p′ by prompt id; "dataset" does not read them.
        labels: Source of p′.
        seed: Seed of random, shuffled and flipped labels.
    """
    if labels == "dataset":
        return {
            prompt.id: Signal(prompt_id=prompt.id, probability=float(prompt.expect == "refuse")) for prompt in prompts
        }
    if labels == "hard":
        return {
            prompt_id: Signal(prompt_id=prompt_id, probability=float(signal.probability >= 0.5))
            for prompt_id, signal in signals.items()
        }
    if labels == "constant":
        mean = fmean(signal.probability for signal in signals.values())
        return {prompt_id: Signal(prompt_id=prompt_id, probability=mean) for prompt_id in signals}
    if labels in FLIPPED:
        return flipped_signals(signals, FLIPPED[labels], seed)
    if labels == "random":
        return random_signals(signals, seed)
    if labels == "shuffled":
        return shuffled_signals(signals, seed)
    return dict(signals)


def planted_signals(prompts: Sequence[Prompt], signals: Mapping[str, Signal]) -> dict[str, Signal]:
    """Return p′ with 1 in place of it for the planted queries.

    Args:
        prompts: Alignment queries.
        signals: The classifier's p′ by prompt id.
    """
    planted = {prompt.id: Signal(prompt_id=prompt.id, probability=1.0) for prompt in prompts if prompt.planted}
    return {**signals, **planted}


def flipped_signals(signals: Mapping[str, Signal], share: float, seed: int) -> dict[str, Signal]:
    """Return p′ with 1 − p′ in place of it for a share of the queries, drawn at random and rounded to whole queries.

    Args:
        signals: The classifier's p′ by prompt id.
        share: Share of the queries, in [0, 1].
        seed: Seed of the draw.
    """
    prompt_ids = sorted(signals)
    flipped = set(random.Random(seed).sample(prompt_ids, round(share * len(prompt_ids))))
    return {
        prompt_id: Signal(prompt_id=prompt_id, probability=1 - signal.probability) if prompt_id in flipped else signal
        for prompt_id, signal in signals.items()
    }


def random_signals(signals: Mapping[str, Signal], seed: int) -> dict[str, Signal]:
    """Return fair coins in place of p′, whatever the query."""
    rng = random.Random(seed)
    return {
        prompt_id: Signal(prompt_id=prompt_id, probability=float(rng.random() < 0.5)) for prompt_id in sorted(signals)
    }


def shuffled_signals(signals: Mapping[str, Signal], seed: int) -> dict[str, Signal]:
    """Return the same values of p′, permuted over the queries at random."""
    prompt_ids = sorted(signals)
    probabilities = [signals[prompt_id].probability for prompt_id in prompt_ids]
    random.Random(seed).shuffle(probabilities)
    return {
        prompt_id: Signal(prompt_id=prompt_id, probability=probability)
        for prompt_id, probability in zip(prompt_ids, probabilities, strict=True)
    }
