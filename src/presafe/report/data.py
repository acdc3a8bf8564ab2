"""What a report is made from: plain frozen records that know nothing of how a run was computed."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from presafe.records import (
    Difference,
    Expect,
    HistoryPoint,
    InsideView,
    OperatingPoint,
    PositionScore,
    Record,
    RefusalPlaces,
    Score,
    SweepScore,
    Thinking,
)
from presafe.signals.calibration import ClassifierCard


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
    thought_verdict: str | None = None


class ReportData(Record):
    """All that a report shows. `histories` is by system name, `timings_s` by stage."""

    title: str
    recipe: dict[str, Any]
    manifest: dict[str, Any]
    timings_s: dict[str, float]
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]
    classifier: ClassifierCard | None
    histories: dict[str, tuple[HistoryPoint, ...]]
    positions: tuple[PositionScore, ...]
    examples: tuple[Example, ...]
    sweep: tuple[SweepScore, ...] = ()
    places: tuple[RefusalPlaces, ...] = ()
    inside: tuple[InsideView, ...] = ()
    operating_points: dict[str, OperatingPoint] = Field(default={})
    """By system name, of adapters that were scaled after training."""
    is_comparison: bool = False
    """Whether it is about its differences, and so has a sentence for each."""
