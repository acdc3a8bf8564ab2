"""What a report is made from: plain frozen records that know nothing of how a run was computed."""

from __future__ import annotations

from typing import Any

from pydantic import FiniteFloat

from presafe.records import Expect, Record, Score, Thinking


class ReliabilityBin(Record):
    """Classifier outputs in [low, high): their mean p', and how often the teacher refused there.

    `confidence_mean` and `frequency` are None in an empty bin.
    """

    low: float
    high: float
    confidence_mean: float | None
    frequency: float | None
    n: int


class ClassifierCard(Record):
    """How well the signal classifier g repeats the teacher's decisions.

    `accuracy` with its 95 % interval and `ece` (expected calibration error) are on held-out queries;
    `trace_accuracy` is the accuracy on CoT-on traces, None where that was not measured.
    """

    n_train: int
    n_held_out: int
    accuracy: float
    low: float
    high: float
    ece: float
    trace_accuracy: float | None
    trace_low: float | None
    trace_high: float | None
    trace_n: int
    bins: tuple[ReliabilityBin, ...]


class HistoryPoint(Record):
    """One logged step of an alignment: L_SFT (nats a token), and L_align where the system has it."""

    step: int
    nll: float
    bce: float | None


class PositionScore(Record):
    """What a system decides before its CoT, read at the decision position of one prompt.

    `refusal_logit` is the model's own log-odds of starting a refusal; `head_probability` is the auxiliary
    head's p in [0, 1], None where the system has no head.
    """

    system: str
    prompt_id: str
    suite: str
    expect: Expect
    refusal_logit: FiniteFloat
    head_probability: float | None


class Example(Record):
    """One prompt and one system's response to it. An offensive one is shown folded away."""

    system: str
    thinking: Thinking
    suite: str
    prompt_id: str
    expect: Expect
    text: str
    thought: str
    answer: str
    verdict: str
    offensive: bool


class ReportData(Record):
    """All that a report shows. `histories` is by system name, `timings_s` by stage."""

    title: str
    recipe: dict[str, Any]
    manifest: dict[str, Any]
    timings_s: dict[str, float]
    scores: tuple[Score, ...]
    classifier: ClassifierCard | None
    histories: dict[str, tuple[HistoryPoint, ...]]
    positions: tuple[PositionScore, ...]
    examples: tuple[Example, ...]
