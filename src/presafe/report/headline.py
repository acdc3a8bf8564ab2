"""The sentences and cards that the numbers write: the gap, the cure, the price.

A missing row leaves its clause out. The wording is the same whatever the numbers say: it reports, and never
asserts that a method worked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from presafe.report.labels import METRICS, SUITES, SYSTEMS, estimate, label, noun, rate
from presafe.report.rows import MODES, find, lead, suites

if TYPE_CHECKING:
    from presafe.records import Score, Thinking

_BEFORE, _AFTER = "vanilla", "presafe"


class Card(NamedTuple):
    """One number before and after PreSafe, with CoT on."""

    suite: str
    metric: str
    before: Score | None
    after: Score | None


def headline(scores: Sequence[Score], model: str = "the model") -> tuple[str, ...]:
    """The run in up to four sentences: the gap, PreSafe, the two comparisons, the price.

    Args:
        scores: The rows; a sentence or clause whose row is missing is left out.
        model: What the sentences call the model.
    """
    said = (_gap(scores, model), _cure(scores), _controls(scores), _price(scores))
    return tuple(sentence for sentence in said if sentence)


def cards(scores: Sequence[Score]) -> tuple[Card, ...]:
    """The numbers of the headline, before and after, that have at least one of the two."""
    made = []
    for suite in _headline_suites(scores):
        metric = lead(scores, suite) or ""
        before, after = (find(scores, system, "on", suite, metric) for system in (_BEFORE, _AFTER))
        if before or after:
            made.append(Card(label(suite, SUITES), label(metric, METRICS), before, after))
    return tuple(made)


def comparisons(scores: Sequence[Score]) -> tuple[str, ...]:
    """Whether PreSafe's interval overlaps those of SFT alone and of the random labels, first harmful suite.

    Disjoint intervals ask for more than a paired difference does, so an overlap is no proof of sameness.
    """
    sentences = []
    for suite in suites(scores, "refuse")[:1]:
        metric = lead(scores, suite) or ""
        ours = find(scores, _AFTER, "on", suite, metric)
        for system in ("sft", "random_labels"):
            theirs = find(scores, system, "on", suite, metric)
            overlap = _overlap(ours, theirs)
            if overlap is None:
                continue
            reading = "overlap: by themselves they do not tell the two apart" if overlap else "do not overlap"
            sentences.append(
                f"{label(suite, SUITES)}, CoT on: PreSafe {estimate(ours)}, {label(system, SYSTEMS)} "
                f"{estimate(theirs)}. The intervals {reading}."
            )
    return tuple(sentences)


def _headline_suites(scores: Sequence[Score]) -> list[str]:
    """One suite to refuse, two to comply with, one to answer: what a headline has room for."""
    return suites(scores, "refuse")[:1] + suites(scores, "comply")[:2] + suites(scores, "answer")[:1]


def _rate(scores: Sequence[Score], system: str, thinking: Thinking, suite: str) -> str | None:
    """The suite's leading rate as a percentage."""
    score = find(scores, system, thinking, suite, lead(scores, suite) or "")
    return rate(score) if score else None


def _verb(scores: Sequence[Score], suite: str) -> str:
    """What the leading rate of a harmful suite counts: refusals or, without them, attacks that succeed."""
    return "refuses" if lead(scores, suite) == "refusal_rate" else "gives in to"


def _gap(scores: Sequence[Score], model: str) -> str | None:
    for suite in suites(scores, "refuse")[:1]:
        on, off = (_rate(scores, _BEFORE, mode, suite) for mode in MODES)
        verb = _verb(scores, suite)
        if on and off:
            return (
                f"With its chain of thought on, {model} {verb} {on} of {noun(suite)}; "
                f"with its chain of thought off, {off}."
            )
        if on or off:
            mode = "on" if on else "off"
            return f"With its chain of thought {mode}, {model} {verb} {on or off} of {noun(suite)}."
    return None


def _cure(scores: Sequence[Score]) -> str | None:
    for suite in suites(scores, "refuse")[:1]:
        gap_said = any(_rate(scores, _BEFORE, mode, suite) for mode in MODES)
        of = "" if gap_said else f" of {noun(suite)}"
        rates = [(mode, _rate(scores, _AFTER, mode, suite)) for mode in MODES]
        said = [f"{share}{of} with the chain of thought {mode}" for mode, share in rates if share]
        if said:
            return f"After PreSafe it {_verb(scores, suite)} {' and '.join(said)}."
    return None


def _controls(scores: Sequence[Score]) -> str | None:
    for suite in suites(scores, "refuse")[:1]:
        sft, random = (_rate(scores, system, "on", suite) for system in ("sft", "random_labels"))
        said = [f"fine-tuning alone (λ = 0) gives {sft}"] if sft else []
        said += [f"random labels in place of the signal give {random}"] if random else []
        if said:
            return f"For comparison, with the chain of thought on, {' and '.join(said)}."
    return None


def _price(scores: Sequence[Score]) -> str | None:
    wrongs = [_with_before(scores, suite) for suite in suites(scores, "comply")[:2]]
    rights = [_with_before(scores, suite) for suite in suites(scores, "answer")[:1]]
    said = [f"wrongly refuses {' and '.join(filter(None, wrongs))}"] if any(wrongs) else []
    said += [f"correctly answers {right}" for right in rights if right]
    return f"With its chain of thought on, PreSafe {', and '.join(said)}." if said else None


def _with_before(scores: Sequence[Score], suite: str) -> str | None:
    """ "3 % of benign prompts (1 % before)", CoT on."""
    before, after = (_rate(scores, system, "on", suite) for system in (_BEFORE, _AFTER))
    return after and f"{after} of {noun(suite)}" + (f" ({before} before)" if before else "")


def _overlap(left: Score | None, right: Score | None) -> bool | None:
    """Whether two intervals share a point; None where a bound is missing."""
    if left is None or right is None:
        return None
    if left.low is None or left.high is None or right.low is None or right.high is None:
        return None
    return left.low <= right.high and right.low <= left.high
