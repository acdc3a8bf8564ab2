"""Measure the classifier: accuracy with an interval, calibration error, reliability bins."""

from __future__ import annotations

from collections.abc import Sequence

from presafe.errors import SignalError
from presafe.records import Rate, Record
from presafe.stats.intervals import Interval, wilson

NUM_BINS = 10
"""Bins of equal width, as in Guo et al. 2017 (who use 15); fewer here because held-out decisions are few."""


class ReliabilityBin(Record):
    """Predictions p′ in [low, high); the last bin includes 1."""

    low: float
    high: float
    confidence_mean: float | None
    """Mean p′; None in an empty bin."""
    frequency: float | None
    """Share of queries that the teacher refused; None in an empty bin."""
    n: int


class ClassifierCard(Record):
    """Agreement of the classifier with the teacher's decisions."""

    num_train: int
    held_out: Interval
    """Accuracy on held-out queries."""
    ece: Rate
    """Expected calibration error on held-out queries, in [0, 1]."""
    traces: Interval
    """Accuracy on held-out queries followed by the model's thought with CoT on."""
    teacher_unjudged: int
    """Decisions without a verdict, which were left out."""
    bins: tuple[ReliabilityBin, ...]
    disputed: Interval | None = None
    """Accuracy on the held-out queries on which the teacher decides otherwise than the label of their set; None if
    there is none, and in older files."""


def accuracy(probabilities: Sequence[float], refused: Sequence[bool]) -> Interval:
    """Return the share of queries on which (p′ ≥ 0.5) is the teacher's decision, with Wilson's 95 % interval.

    Args:
        probabilities: p′ of each query, in [0, 1].
        refused: The teacher's decision on each.

    Raises:
        SignalError: no decisions, or not as many as probabilities.
    """
    _check_lengths(probabilities, refused)
    hits = sum((p >= 0.5) == label for p, label in zip(probabilities, refused, strict=True))
    return wilson(hits, len(refused))


def reliability(probabilities: Sequence[float], refused: Sequence[bool]) -> list[ReliabilityBin]:
    """Return the bins of a reliability plot, from low to high.

    Args:
        probabilities: p′ of each query, in [0, 1].
        refused: The teacher's decision on each.

    Raises:
        SignalError: as `accuracy`.
    """
    _check_lengths(probabilities, refused)
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
    """Return ECE = Σ_bins n_b/n · |frequency_b − confidence_b|, in [0, 1] (Guo et al. 2017, arXiv 1706.04599).

    Args:
        probabilities: p′ of each query, in [0, 1].
        refused: The teacher's decision on each.

    Raises:
        SignalError: as `accuracy`.
    """
    gaps = [
        row.n * abs(row.frequency - row.confidence_mean)
        for row in reliability(probabilities, refused)
        if row.frequency is not None and row.confidence_mean is not None
    ]
    return sum(gaps) / len(refused)


def _check_lengths(probabilities: Sequence[float], refused: Sequence[bool]) -> None:
    if not refused or len(probabilities) != len(refused):
        raise SignalError(
            f"{len(probabilities)} probabilities for {len(refused)} decisions: give as many of both, and at least one."
        )
