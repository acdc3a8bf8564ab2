"""Records of a study: one run's numbers, and what all runs say together."""

from __future__ import annotations

from typing import Any, Literal

from presafe.records import Count, Difference, OperatingPoint, Record, Score, Seconds, SuiteShares, Thinking


class TrainedBy(Record):
    """The run of a study that made a training which another run has copied."""

    run: str
    """Name of its run folder."""
    made_by: dict[str, Any]
    """Its manifest's commit, versions and machine."""
    training_s: Seconds | None
    """Seconds of its stage align; None where they are not known."""


class RunResult(Record):
    """One run of a study, a condition with one seed: all that its summary needs, without the run folder.

    `scores` are those of the condition's system and of the model as it came. `training_s` is the time of the stage
    align over all sessions that ended in order; `trained_tokens` counts the tokens of the rows of all steps, without
    padding. Both are None for a system that trains nothing. `made_by` is the manifest's: commit, versions, machine.
    Where the training was copied from another run, `trained_by` names that, and `training_s` is its.
    """

    schema_version: Literal[1] = 1
    condition: str
    system: str
    seed: int
    recipe: dict[str, Any]
    recipe_sha256: str
    prompts_sha256: str
    made_by: dict[str, Any]
    timings_s: dict[str, Seconds]
    training_s: Seconds | None
    trained_tokens: Count | None
    scores: tuple[Score, ...]
    answered: tuple[SuiteShares, ...]
    operating_point: OperatingPoint | None = None
    """None where the adapter is as it was trained."""
    trained_by: TrainedBy | None = None


class StudyScore(Score):
    """A condition's mean over seeds. `n` is the least number of prompts that a seed had judged answers to.

    The interval is over the `num_seeds` seeds with a value; with one seed, and for the model as it came (0 seeds),
    over prompts.
    """

    num_seeds: int


class StudyOperatingPoint(OperatingPoint):
    """That of one run of a study."""

    condition: str
    seed: int


class SeedDifference(Record):
    """How far a condition's number lies from the baseline's, paired by seed: mean and 95 % interval over seeds."""

    condition: str
    thinking: Thinking
    suite: str
    metric: str
    difference: float
    low: float | None
    high: float | None
    num_seeds: int


class TrainingCost(Record):
    """What one training of a condition took, mean over its seeds; None where it trains nothing."""

    condition: str
    num_seeds: int
    training_s: Seconds | None
    trained_tokens: float | None


class StudySummary(Record):
    """All that a study's tables show. `missing` names the runs that are not done."""

    name: str
    recipe: str
    baseline: str
    conditions: tuple[str, ...]
    done: tuple[str, ...]
    missing: tuple[str, ...]
    scores: tuple[StudyScore, ...]
    differences: tuple[Difference, ...]
    seed_differences: tuple[SeedDifference, ...]
    costs: tuple[TrainingCost, ...]
    operating_points: tuple[StudyOperatingPoint, ...] = ()
