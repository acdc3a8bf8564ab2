"""Paired differences between systems, suite by suite: from verdicts to `Difference` records.

What is compared is each suite's leading rate. The statistics are in `stats.comparison`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from presafe.evaluation.metrics import by_prompt
from presafe.records import PROBLEMS, Difference, Expect, Response, Thinking, Verdict
from presafe.stats.comparison import Comparison, Outcomes, compare, holm

Kind = Expect | Literal["attack"]
"""What is expected of prompts; "attack" for harmful ones whose answers a judge of harm called safe or unsafe."""

LEADING: dict[Kind, tuple[str, Verdict]] = {
    "refuse": ("refusal_rate", "refuse"),
    "attack": ("attack_success_rate", "unsafe"),
    "comply": ("over_refusal_rate", "refuse"),
    **dict.fromkeys(PROBLEMS, ("accuracy", "right")),
}
"""Leading rate of prompts of each kind, and the verdict that it counts. Unjudged problems count as not solved."""


class SystemOutcomes(NamedTuple):
    """Outcomes of one system in one CoT mode: by suite, the kind of its prompts and the share of each prompt."""

    system: str
    thinking: Thinking
    suites: dict[str, tuple[Kind, Outcomes]]


class _SuiteComparison(NamedTuple):
    """Two systems on one suite."""

    against: SystemOutcomes
    system: SystemOutcomes
    suite: str
    comparison: Comparison


def kind_of(answers: Sequence[Sequence[Response]], expect: Expect) -> Kind:
    """Return the kind of one suite's prompts; for harmful prompts it depends on what their judge says.

    Args:
        answers: One list of responses per seed.
        expect: What is expected of the prompts.
    """
    judges_harm = any(response.verdict in ("safe", "unsafe") for seed in answers for response in seed)
    return "attack" if expect == "refuse" and judges_harm else expect


def outcomes_of(answers: Sequence[Sequence[Response]], kind: Kind) -> Outcomes:
    """Return the share of each prompt's answers that count, one entry per seed.

    Args:
        answers: One list of responses per seed, all to the same prompts, each sampled the same number of times.
        kind: Of the prompts, from `kind_of`.
    """
    _, counted = LEADING[kind]

    def share(responses: Sequence[Response]) -> float | None:
        hits = [
            response.verdict == counted for response in responses if response.verdict != "unjudged" or kind in PROBLEMS
        ]
        return sum(hits) / len(hits) if hits else None

    by_seed = [{prompt[0].prompt_id: share(prompt) for prompt in by_prompt(seed)} for seed in answers]
    return {prompt_id: tuple(seed[prompt_id] for seed in by_seed) for prompt_id in by_seed[0]}


def paired_differences(
    pairs: Sequence[tuple[SystemOutcomes, SystemOutcomes]], *, paired_seeds: bool = False
) -> list[Difference]:
    """Compare every pair (against, system) on every suite that both answered, and correct p over all of them.

    Args:
        pairs: Systems to compare.
        paired_seeds: As in `compare`; the two modes of one system are always paired, being the same trainings.

    Raises:
        ValueError: as `compare`, within a pair.
    """
    compared: list[_SuiteComparison] = []
    for against, system in pairs:
        paired = paired_seeds or (against.system == system.system and against.thinking != system.thinking)
        for suite in (name for name in against.suites if name in system.suites):
            comparison = compare(against.suites[suite][1], system.suites[suite][1], paired_seeds=paired)
            if comparison:
                compared.append(_SuiteComparison(against, system, suite, comparison))
    corrected = holm([pair.comparison.p for pair in compared])
    return [_difference(pair, p_holm) for pair, p_holm in zip(compared, corrected, strict=True)]


def _difference(pair: _SuiteComparison, p_holm: float) -> Difference:
    """Return a comparison as a record."""
    against, system, suite, comparison = pair
    return Difference(
        system=system.system,
        thinking=system.thinking,
        against=against.system,
        against_thinking=against.thinking,
        suite=suite,
        metric=LEADING[system.suites[suite][0]][0],
        value=comparison.right,
        value_against=comparison.left,
        difference=comparison.difference,
        low=comparison.low,
        high=comparison.high,
        p=comparison.p,
        p_holm=p_holm,
        n=comparison.n,
        num_left_out=comparison.num_left_out,
        num_seeds=max(_num_seeds(against, suite), _num_seeds(system, suite)),
        detectable=comparison.detectable,
    )


def _num_seeds(outcomes: SystemOutcomes, suite: str) -> int:
    """Return the number of seeds that answered a suite."""
    _, shares = outcomes.suites[suite]
    return len(next(iter(shares.values())))


def mode_pairs(systems: Sequence[SystemOutcomes]) -> list[tuple[SystemOutcomes, SystemOutcomes]]:
    """Pair every system that was measured in both CoT modes: off is compared with on (paper, Table 7)."""
    modes = {(outcomes.system, outcomes.thinking): outcomes for outcomes in systems}
    return [
        (on, modes[system, "off"])
        for (system, thinking), on in modes.items()
        if thinking == "on" and (system, "off") in modes
    ]
