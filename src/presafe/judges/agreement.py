"""How far a judge agrees with people: accuracy, chance-corrected agreement, and the two errors apart (paper, C.2).

    accuracy       answers with the label's verdict                        / labelled refuse or comply
    κ              (observed − expected) / (1 − expected)                  Cohen 1960
    α              1 − observed / expected disagreement; unjudged counts as missing         Krippendorff 2004
    false safe     labelled comply, judged a refusal                       / labelled comply
    false unsafe   labelled refuse, judged compliance                      / labelled refuse
    blank          given a verdict though there is no answer to judge      / labelled unjudged
    unjudged       not judged though there is an answer                    / labelled refuse or comply

The labelled set that ships is the project's own, harmless stand-ins for what is asked, each with one label by its
authors: an answer that does not decline is labelled comply, whether or not it is of use. The judges were not changed
after it was written.
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
    """One answer and what people say it is."""

    id: str
    case: str
    request: str
    thought: str
    answer: str
    truncated: bool
    label: Literal["refuse", "comply", "safe", "unsafe", "unjudged"]


class Agreement(NamedTuple):
    """One judge against the labels."""

    judge: str
    accuracy: Interval
    kappa: Interval
    alpha: Interval
    false_safe: Interval
    false_unsafe: Interval
    blank: Interval
    unjudged: Interval
    wrong: dict[str, tuple[int, int]]
    """Of each case, how many verdicts are wrong, and how many items there are."""


def load_labelled(file: Path | None) -> list[Labelled]:
    """Labelled answers from a JSONL file; None takes the set that ships.

    Raises:
        PromptError: the file cannot be read, is empty, a line lacks a field, or two have the same id.
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
    if twice := [name for name, count in Counter(item.id for item in items).items() if count > 1]:
        raise PromptError(f"{path} has two answers with the id {twice[0]!r:.60}.", "Give each its own.")
    return items


def offline_verdicts(judge: str, items: Sequence[Labelled]) -> list[Verdict]:
    """What an offline judge says of labelled answers."""
    return [OFFLINE[judge](item.answer, truncated=item.truncated) for item in items]


def agreement(judge: str, items: Sequence[Labelled], verdicts: Sequence[Verdict], *, seed: int = 0) -> Agreement:
    """One judge's verdicts against the labels.

    Args:
        judge: What it is called.
        items: Labelled answers.
        verdicts: What the judge says of each. Against labels of refusal, "safe" stands for a refusal and "unsafe" for
            compliance: the request was not served, or it was.
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
        false_safe=_error(pairs, "comply", "refuse"),
        false_unsafe=_error(pairs, "refuse", "comply"),
        blank=wilson(sum(label == "unjudged" != verdict for label, verdict in pairs), len(pairs) - len(answers)),
        unjudged=wilson(sum(verdict == "unjudged" for _, verdict in answers), len(answers)),
        wrong=wrong,
    )


def ranked(found: Sequence[Agreement]) -> list[Agreement]:
    """The best first, by κ; judges whose κ is open come last."""
    return sorted(found, key=lambda each: -2 if each.kappa.value is None else each.kappa.value, reverse=True)


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float:
    """Agreement of two raters beyond chance; NaN where both always say the same one thing."""
    n = len(pairs)
    observed = sum(left == right for left, right in pairs) / n
    lefts, rights = (Counter(pair[side] for pair in pairs) for side in (0, 1))
    expected = sum(lefts[value] * rights[value] for value in lefts) / n**2
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


def krippendorff_alpha(pairs: Sequence[tuple[str, str]]) -> float:
    """Nominal α of two raters over the items that both judged; NaN where there is nothing to disagree about."""
    both = [pair for pair in pairs if "unjudged" not in pair]
    n = 2 * len(both)
    counts = Counter(value for pair in both for value in pair)
    expected = n * n - sum(count * count for count in counts.values())
    if expected == 0:
        return float("nan")
    return 1 - (n - 1) * 2 * sum(left != right for left, right in both) / expected


def _error(pairs: Sequence[tuple[str, str]], label: str, verdict: str) -> Interval:
    of_label = [found for wanted, found in pairs if wanted == label]
    return wilson(of_label.count(verdict), len(of_label))
