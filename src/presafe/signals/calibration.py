"""How far the classifier can be believed: accuracy with an interval, calibration error, reliability bins."""

from __future__ import annotations

from collections.abc import Sequence

from presafe.errors import SignalError
from presafe.records import Record
from presafe.stats.intervals import Interval, wilson

NUM_BINS = 10
"""Equal-width bins, as in Guo et al. 2017 (with 15); fewer because held-out decisions are few."""


class ReliabilityBin(Record):
    """Predictions in [low, high): their mean, and how often the teacher refused; None in an empty bin."""

    low: float
    high: float
    confidence_mean: float | None
    frequency: float | None
    n: int


class ClassifierCard(Record):
    """How well the classifier repeats the teacher's decisions.

    `held_out` is its accuracy on held-out queries and `ece` its calibration error there; `traces` is its accuracy on
    the same queries, each followed by the thought that the model has about it with CoT on. Decisions that the judge
    could not read (`teacher_unjudged`) were left out.
    """

    num_train: int
    held_out: Interval
    ece: float
    traces: Interval
    teacher_unjudged: int
    bins: tuple[ReliabilityBin, ...]


def accuracy(probabilities: Sequence[float], refused: Sequence[bool]) -> Interval:
    """Share of queries on which (p′ ≥ 0.5) is the teacher's decision, with Wilson's 95 % interval."""
    _check(probabilities, refused)
    hits = sum((p >= 0.5) == label for p, label in zip(probabilities, refused, strict=True))
    return wilson(hits, len(refused))


def reliability(probabilities: Sequence[float], refused: Sequence[bool]) -> list[ReliabilityBin]:
    """The bins of a reliability plot, from low to high."""
    _check(probabilities, refused)
    bins = []
    for number in range(NUM_BINS):
        inside = [
            (p, label)
            for p, label in zip(probabilities, refused, strict=True)
            if min(int(p * NUM_BINS), NUM_BINS - 1) == number
        ]
        n = len(inside)
        bins.append(
            ReliabilityBin(
                low=number / NUM_BINS,
                high=(number + 1) / NUM_BINS,
                confidence_mean=sum(p for p, _ in inside) / n if n else None,
                frequency=sum(label for _, label in inside) / n if n else None,
                n=n,
            )
        )
    return bins


def expected_calibration_error(probabilities: Sequence[float], refused: Sequence[bool]) -> float:
    """ECE = Σ_bins n_b/n · |frequency_b − confidence_b|, in [0, 1] (Guo et al. 2017, arXiv 1706.04599)."""
    gaps = [
        each.n * abs(each.frequency - each.confidence_mean)
        for each in reliability(probabilities, refused)
        if each.frequency is not None and each.confidence_mean is not None
    ]
    return sum(gaps) / len(refused)


def _check(probabilities: Sequence[float], refused: Sequence[bool]) -> None:
    if not refused or len(probabilities) != len(refused):
        raise SignalError(
            f"{len(probabilities)} probabilities for {len(refused)} decisions; both must be the same, and some."
        )
