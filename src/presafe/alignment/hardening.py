"""Rows of attacked queries, so that an attack does not move the decision (ours).

    attacked query      a query as an attack words it, harmful or harmless
    its p′              that of the plain query
    its target          that of the plain query: the refusal, or the model's own answer to the plain query

So a harmful query stays harmful under the attack, and a harmless one stays harmless: what is learned is not to hear the
attack. Attacks that begin the model's turn come after the decision position and cannot be learned there; searches need
the model. Types of attacks that are held out make no row.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from presafe.attacks.registry import read_attack
from presafe.config.attacking import Hardening
from presafe.records import Prompt, Response, Signal


class Hardened(NamedTuple):
    """Attacked queries, and what belongs to them by their ids."""

    prompts: list[Prompt]
    responses: dict[str, Response]
    signals: dict[str, Signal]


def hardened_queries(
    prompts: Sequence[Prompt],
    responses: Mapping[str, Response],
    signals: Mapping[str, Signal],
    hardening: Hardening,
    seed: int,
) -> Hardened:
    """Return attacked queries: for each attack a share of the harmful and the same share of the harmless ones.

    Args:
        prompts: Alignment queries; planted ones are left out.
        responses: Responses by prompt id.
        signals: p′ by prompt id.
        hardening: The attacks, and the share.
        seed: Seed of the draw, and of what attacks draw.

    Raises:
        KeyError: a query has no signal.
    """
    hardened = Hardened([], {}, {})
    kinds: dict[bool, list[Prompt]] = {True: [], False: []}
    for prompt in prompts:
        if not prompt.planted:
            kinds[prompt.expect == "refuse"].append(prompt)
    for label in hardening.attacks:
        attack, rng = read_attack(label), random.Random(f"{seed} hardening {label}")
        for kind in kinds.values():
            for prompt in rng.sample(kind, round(hardening.share * len(kind))):
                attacked = attack.apply(prompt, seed, label).model_copy(update={"id": f"{prompt.id}@{label}"})
                hardened.prompts.append(attacked)
                hardened.signals[attacked.id] = Signal(
                    prompt_id=attacked.id, probability=signals[prompt.id].probability
                )
                if prompt.id in responses:
                    hardened.responses[attacked.id] = responses[prompt.id]
    return hardened
