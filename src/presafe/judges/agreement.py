"""Measure a judge against labels by people: accuracy, chance-corrected agreement, and two error rates (paper, C.2).

    accuracy       answers with the label's verdict                        / labelled refuse or comply
    κ              (observed − expected) / (1 − expected)                  Cohen 1960
    α              1 − observed / expected disagreement; unjudged counts as missing         Krippendorff 2004
    false safe     labelled comply, judged a refusal                       / labelled comply
    false unsafe   labelled refuse, judged compliance                      / labelled refuse
    blank          given a verdict although there is no answer to judge    / labelled unjudged
    unjudged       not judged although there is an answer                  / labelled refuse or comply

The shipped set is the project's own. Its requests are harmless stand-ins, and its authors gave each answer one label:
an answer that does not decline is labelled comply, useful or not. The refusal strings were mended on it. `unseen.jsonl`
beside it was written and labelled after that, and they were not changed since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ValidationError

from presafe.config.files import format_validation_error
from presafe.errors import PromptError
from presafe.judges.refusal import OFFLINE
from presafe.prompts.rows import read_rows
from presafe.records import Record, Verdict
from presafe.stats.bootstrap import statistic_interval
from presafe.stats.intervals import Interval, wilson

_SIDES = {"safe": "refuse", "unsafe": "comply"}


class Labelled(Record):
    """One answer and its label by people."""

    id: str
    case: str
    request: str
    thought: str
    answer: str
    truncated: bool
    label: Literal["refuse", "comply", "safe", "unsafe", "unjudged"]


class Agreement(NamedTuple):
    """Agreement of one judge with the labels."""

    judge: str
    accuracy: Interval
    kappa: Interval
    alpha: Interval
    false_safe: Interval
    false_unsafe: Interval
    blank: Interval
    unjudged: Interval
    wrong: dict[str, tuple[int, int]]
    """Number of wrong verdicts and number of items, by case."""


class Pair(NamedTuple):
    """Agreement of two judges with each other, on the answers that both judged."""

    left: str
    right: str
    same: Interval
    """Share of these answers with the same verdict."""
    kappa: Interval


def load_labelled(file: Path | None) -> list[Labelled]:
    """Load labelled answers from a JSONL file; None loads the shipped set.

    Raises:
        PromptError: the file cannot be read or is empty, a line lacks a field, or two lines have the same id.
    """
    path = file or Path(str(resources.files("presafe.judges") / "data" / "labelled.jsonl"))
    items = []
    for number, row in enumerate(read_rows(path), start=1):
        try:
            items.append(Labelled.model_validate(row))
        except ValidationError as error:
            raise PromptError(f"{path}:{number}: {format_validation_error(error, 'line')}.") from error
    if not items:
        raise PromptError(f"{path} holds no labelled answers.")
    if repeated := [name for name, count in Counter(item.id for item in items).items() if count > 1]:
        raise PromptError(f"{path} has two answers with the id {repeated[0]!r:.60}.", "Give each answer its own id.")
    return items


def offline_verdicts(judge: str, items: Sequence[Labelled]) -> list[Verdict]:
    """Return the verdicts of an offline judge on labelled answers."""
    return [OFFLINE[judge](item.answer, truncated=item.truncated) for item in items]


def agreement(judge: str, items: Sequence[Labelled], verdicts: Sequence[Verdict], *, seed: int = 0) -> Agreement:
    """Compare one judge's verdicts with the labels.

    Args:
        judge: Its name.
        items: Labelled answers.
        verdicts: The judge's verdict on each. Against labels of refusal, "safe" counts as refuse and "unsafe" as
            comply: the request was not served, or it was.
        seed: Seed of the bootstrap over items.
    """
    pairs = [
        (_SIDES.get(item.label, item.label), _SIDES.get(verdict, verdict))
        for item, verdict in zip(items, verdicts, strict=True)
    ]
    answers = [pair for pair in pairs if pair[0] != "unjudged"]
    wrong: dict[str, tuple[int, int]] = {}
    for item, (label, verdict) in zip(items, pairs, strict=True):
        missed, n = wrong.get(item.case, (0, 0))
        wrong[item.case] = missed + (verdict != label), n + 1
    return Agreement(
        judge=judge,
        accuracy=wilson(sum(label == verdict for label, verdict in answers), len(answers)),
        kappa=statistic_interval(cohen_kappa, answers, seed=seed),
        alpha=statistic_interval(krippendorff_alpha, answers, seed=seed),
        false_safe=_error_rate(pairs, "comply", "refuse"),
        false_unsafe=_error_rate(pairs, "refuse", "comply"),
        blank=wilson(sum(label == "unjudged" != verdict for label, verdict in pairs), len(pairs) - len(answers)),
        unjudged=wilson(sum(verdict == "unjudged" for _, verdict in answers), len(answers)),
        wrong=wrong,
    )


def between(left: str, of_left: Sequence[Verdict], right: str, of_right: Sequence[Verdict], *, seed: int = 0) -> Pair:
    """Compare two judges with each other; "safe" counts as refuse and "unsafe" as comply.

    Args:
        left: One judge's name.
        of_left: Its verdicts.
        right: The other's name.
        of_right: Its verdicts on the same answers, in the same order.
        seed: Seed of the bootstrap over answers.
    """
    sided = [(_SIDES.get(one, one), _SIDES.get(other, other)) for one, other in zip(of_left, of_right, strict=True)]
    both = [pair for pair in sided if "unjudged" not in pair]
    same = wilson(sum(one == other for one, other in both), len(both))
    return Pair(left, right, same, statistic_interval(cohen_kappa, both, seed=seed))


def ranked(agreements: Sequence[Agreement]) -> list[Agreement]:
    """Sort judges by κ, best first; judges without κ come last."""
    return sorted(agreements, key=lambda row: -2 if row.kappa.value is None else row.kappa.value, reverse=True)


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float:
    """Return the agreement of two raters beyond chance; NaN if both always give the same value."""
    n = len(pairs)
    observed = sum(left == right for left, right in pairs) / n
    lefts, rights = (Counter(pair[side] for pair in pairs) for side in (0, 1))
    expected = sum(lefts[value] * rights[value] for value in lefts) / n**2
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


def krippendorff_alpha(pairs: Sequence[tuple[str, str]]) -> float:
    """Return nominal α of two raters over the items that both judged; NaN if there is only a single value."""
    both = [pair for pair in pairs if "unjudged" not in pair]
    n = 2 * len(both)
    counts = Counter(value for pair in both for value in pair)
    expected = n * n - sum(count * count for count in counts.values())
    if expected == 0:
        return float("nan")
    return 1 - (n - 1) * 2 * sum(left != right for left, right in both) / expected


def _error_rate(pairs: Sequence[tuple[str, str]], label: str, wrong: str) -> Interval:
    """Return the share of answers with a label that have a wrong verdict."""
    verdicts = [verdict for pair_label, verdict in pairs if pair_label == label]
    return wilson(verdicts.count(wrong), len(verdicts))
