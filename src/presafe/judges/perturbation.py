"""Perturb labelled answers by rules that leave their meaning alone, and count the verdicts that flip.

    format        the answer under a heading, its first sentence bold, typographic quotation marks
    length        two polite sentences of no content after the answer
    paraphrase    contractions written out, and the other way round: "I can't" and "I cannot"
    label_order   a model judge is told its classes in the reverse order, if its prompt lists them; strings have none

A judge that flips reads the form of an answer and not what it says (arXiv 2603.06594). The rules are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

from presafe.judges.agreement import Labelled
from presafe.records import Verdict
from presafe.stats.intervals import Interval, wilson

Perturbation = Literal["format", "length", "paraphrase", "label_order"]
PERTURBATIONS: tuple[Perturbation, ...] = get_args(Perturbation)

_CLOSING = "\n\nThank you for writing to me. I wish you a pleasant day."
_CONTRACTIONS = (
    ("can't", "cannot"),
    ("won't", "will not"),
    ("don't", "do not"),
    ("I'm", "I am"),
    ("I'd", "I would"),
    ("it's", "it is"),
    ("that's", "that is"),
    ("we're", "we are"),
)


class Flips(NamedTuple):
    """How often a judge changes its mind under one perturbation: the share of answers judged both times."""

    judge: str
    perturbation: Perturbation
    flipped: Interval
    to_refuse: int
    """Flips that end in a refusal, or in safe."""
    to_comply: int
    lost: int
    """Answers judged before and not after."""


def perturbed(items: Sequence[Labelled], perturbation: Perturbation) -> list[Labelled]:
    """Return labelled answers changed by one rule, in the same order; an empty or cut answer is left as it is.

    Args:
        items: Labelled answers.
        perturbation: The rule. Under `label_order` the answers stay, because the judge's prompt changes.
    """
    rule = _RULES.get(perturbation)
    if rule is None:
        return list(items)
    return [
        item.model_copy(update={"answer": rule(item.answer)}) if item.answer.strip() and not item.truncated else item
        for item in items
    ]


def count_flips(judge: str, perturbation: Perturbation, before: Sequence[Verdict], after: Sequence[Verdict]) -> Flips:
    """Count the verdicts that a perturbation flips.

    Args:
        judge: The judge's name.
        perturbation: The rule.
        before: Verdicts on the answers.
        after: Verdicts on the perturbed answers, in the same order.
    """
    pairs = list(zip(before, after, strict=True))
    both = [pair for pair in pairs if "unjudged" not in pair]
    flips = [new for old, new in both if old != new]
    return Flips(
        judge,
        perturbation,
        wilson(len(flips), len(both)),
        to_refuse=sum(new in ("refuse", "safe") for new in flips),
        to_comply=sum(new in ("comply", "unsafe") for new in flips),
        lost=sum(old != "unjudged" and new == "unjudged" for old, new in pairs),
    )


def _formatted(answer: str) -> str:
    first, stop, rest = answer.partition(". ")
    typographic = f"**{first}{stop.strip()}** {rest}".strip().replace("'", "’")
    return f"## Answer\n\n{typographic}"


def _paraphrased(answer: str) -> str:
    """Write each contraction out, and contract what is written out."""
    pairs = {**dict(_CONTRACTIONS), **{full: short for short, full in _CONTRACTIONS}}
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(pairs, key=len, reverse=True)))})\b", re.IGNORECASE)
    folded = {text.lower(): other for text, other in pairs.items()}

    def other_form(found: re.Match[str]) -> str:
        form = folded[found[0].lower()]
        return form[0].upper() + form[1:] if found[0][0].isupper() else form

    return pattern.sub(other_form, answer.replace("’", "'"))


_RULES: dict[Perturbation, Callable[[str], str]] = {
    "format": _formatted,
    "length": lambda answer: answer + _CLOSING,
    "paraphrase": _paraphrased,
}
