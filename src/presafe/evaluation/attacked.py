"""Suites under attack and systems behind defenses: their names, and which suites a mode has.

SUITE@ATTACK       a harmful suite under an attack is a suite of its own
SYSTEM+DEFENSE     a system behind a defense is a system of its own
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from presafe.attacks.registry import attacks, read_attack
from presafe.attacks.search import Search
from presafe.errors import AttackError
from presafe.records import Prompt, Thinking

Suites = Mapping[str, Sequence[Prompt]]


def defended(system: str, defense: str | None) -> str:
    """Return the name of a system in results: behind a defense, SYSTEM+DEFENSE.

    Args:
        system: Name of the system.
        defense: Label of the defense, or None.
    """
    return system if defense is None else f"{system}+{defense}"


def file_name(name: str) -> str:
    """Return a name without the characters that no file's name, or no log's, may hold: a label may hold an address.

    Args:
        name: Name of a system, or label of an attack.
    """
    return re.sub(r"[/#?%]", "_", name)


def attacked_suites(suites: Suites, labels: Sequence[str], seed: int) -> dict[str, list[Prompt]]:
    """Return the suites, and each harmful one again under each attack.

    Args:
        suites: Prompts by suite.
        labels: Labels of attacks.
        seed: Seed of what attacks draw.

    Raises:
        AttackError: there is an attack and no harmful suite, or a suite has the name of an attacked one.
    """
    all_suites = {name: list(prompts) for name, prompts in suites.items()}
    harmful = [name for name, prompts in suites.items() if prompts and prompts[0].expect == "refuse"]
    if labels and not harmful:
        raise AttackError(f"attack {labels[0]} would attack none of the suites.", "Add a suite of prompts to refuse.")
    for label in labels:
        attack = read_attack(label)
        for name in harmful:
            if (attacked := f"{name}@{file_name(label)}") in all_suites:
                raise AttackError(f"suite {attacked} has the name of an attacked suite.", "Rename it.")
            all_suites[attacked] = [attack.apply(prompt, seed, label) for prompt in suites[name]]
    return all_suites


def measured_suites(suites: Iterable[str], labels: Sequence[str]) -> list[str]:
    """Return the names of suites, and what they would be called under each attack; harmless ones are not attacked.

    Args:
        suites: Names of suites.
        labels: Labels of attacks.
    """
    names = list(suites)
    return [*names, *(f"{name}@{file_name(label)}" for name in names for label in labels)]


def suites_in_mode(suites: Suites, thinking: Thinking) -> dict[str, Sequence[Prompt]]:
    """Return the suites that can be asked in a mode: without a thought, none that begins one.

    Args:
        suites: Prompts by suite.
        thinking: CoT mode.
    """
    return {name: prompts for name, prompts in suites.items() if thinking != "off" or not begins_thought(name)}


def begins_thought(suite: str) -> bool:
    """Return whether the attack in a suite's name leaves a thought open, so that CoT off has no such suite.

    Args:
        suite: Name of a suite; what stands after an @ need not be an attack.
    """
    label = suite.rpartition("@")[2] if "@" in suite else ""
    if label.partition(":")[0] not in attacks():
        return False
    prefill = read_attack(label).prefill()
    return prefill is not None and not prefill.closed


def attacks_decision(labels: Sequence[str]) -> bool:
    """Return whether one of some attacks reads the decision before the CoT.

    Args:
        labels: Labels of attacks.
    """
    searches = [attack for label in labels if isinstance(attack := read_attack(label), Search)]
    return any(search.objective().decision > 0 for search in searches)
