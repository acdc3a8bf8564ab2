"""Where p′ is from: the classifier, or what stands in its place in an ablation or a control."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from presafe.methods.method import Labels
from presafe.records import Prompt, Signal


def labels_of(prompts: Sequence[Prompt], signals: Mapping[str, Signal], labels: Labels, seed: int) -> dict[str, Signal]:
    """p′ of every query, by prompt id.

    Args:
        prompts: Alignment queries.
        signals: The classifier's p′ by prompt id; not read for "dataset".
        labels: Where p′ is from.
        seed: Seed of random and of shuffled labels.
    """
    if labels == "dataset":
        return {each.id: Signal(prompt_id=each.id, probability=float(each.expect == "refuse")) for each in prompts}
    if labels == "hard":
        return {name: Signal(prompt_id=name, probability=float(p.probability >= 0.5)) for name, p in signals.items()}
    if labels == "random":
        return random_signals(signals, seed)
    if labels == "shuffled":
        return shuffled_signals(signals, seed)
    return dict(signals)


def random_signals(signals: Mapping[str, Signal], seed: int) -> dict[str, Signal]:
    """p′ replaced by fair coins, whatever the query."""
    rng = random.Random(seed)
    return {name: Signal(prompt_id=name, probability=float(rng.random() < 0.5)) for name in sorted(signals)}


def shuffled_signals(signals: Mapping[str, Signal], seed: int) -> dict[str, Signal]:
    """The same p′, dealt out to the queries at random."""
    names = sorted(signals)
    dealt = [signals[name].probability for name in names]
    random.Random(seed).shuffle(dealt)
    return {name: Signal(prompt_id=name, probability=p) for name, p in zip(names, dealt, strict=True)}
