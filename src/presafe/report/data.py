"""What a report is made from: plain frozen records, independent of how a run was computed."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from presafe.records import (
    Difference,
    Expect,
    HeadFit,
    HistoryPoint,
    InsideView,
    OperatingPoint,
    PositionScore,
    Record,
    RefusalPlaces,
    Score,
    SweepScore,
    Thinking,
    ThoughtBin,
)
from presafe.signals.calibration import ClassifierCard


class Example(Record):
    """One prompt and one system's response to it. An offensive example is folded away."""

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
    """Everything that a report shows. A field that is left out has no section."""

    title: str
    recipe: dict[str, Any]
    manifest: dict[str, Any]
    timings_s: dict[str, float]
    """Seconds by stage."""
    scores: tuple[Score, ...] = ()
    panel: tuple[Score, ...] = ()
    """Rows of each member of a panel of judges, and of their agreement; `judge` names the member or the panel."""
    differences: tuple[Difference, ...] = ()
    classifier: ClassifierCard | None = None
    histories: dict[str, tuple[HistoryPoint, ...]] = Field(default={})
    """By system name."""
    positions: tuple[PositionScore, ...] = ()
    thoughts: tuple[ThoughtBin, ...] = ()
    """Success of attacks by the length of the thought, CoT on; where attacks were measured."""
    examples: tuple[Example, ...] = ()
    sweep: tuple[SweepScore, ...] = ()
    places: tuple[RefusalPlaces, ...] = ()
    inside: tuple[InsideView, ...] = ()
    operating_points: dict[str, OperatingPoint] = Field(default={})
    """By system name, of adapters that were scaled after training."""
    head_fits: dict[str, HeadFit] = Field(default={})
    """By system name, of systems with a head at the decision position."""
    comparisons: tuple[str, ...] = ()
    """Folders beside the page that hold a comparison with another run."""
    is_comparison: bool = False
    """Whether the report is about its differences, and so has a sentence for each."""
