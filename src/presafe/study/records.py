"""Records of a study: the numbers of one run, and the summary of all runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from presafe.config.recipe import Recipe
from presafe.records import (
    Count,
    Difference,
    HeadFit,
    OperatingPoint,
    PositionScore,
    Rate,
    Record,
    Score,
    Seconds,
    SuiteShares,
    Thinking,
)
from presafe.study.spec import Endpoint


def settings_without_defaults(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of a recipe that differ from the defaults; `parse_recipe` makes the same recipe of them.

    Args:
        recipe: The recipe. If it has a setting that must be written even at its default (the split of a data set on
            the hub), all settings are returned.
    """
    recipe = recipe.model_copy(update={"engine": None})  # where it samples is no part of a run, and is not written
    settings = recipe.model_dump(mode="json", exclude_defaults=True)
    # older files lack them, and mean another value (`config/stored.py`)
    settings["align"] = {**settings.get("align", {}), "standardize_head": recipe.align.standardize_head}
    settings["evaluate"] = {**settings["evaluate"], "draw": recipe.evaluate.draw}
    try:
        is_complete = Recipe.model_validate(settings) == recipe
    except ValidationError:
        is_complete = False
    return settings if is_complete else recipe.model_dump(mode="json")


class TrainedBy(Record):
    """The run whose training another run has copied."""

    run: str
    """Name of its run folder."""
    made_by: dict[str, Any]
    """Commit, versions and machine, from its manifest."""
    training_s: Seconds | None
    """Seconds of its stage align; None if they are not known."""


class RunResult(Record):
    """The numbers of one run of a study (one condition, one seed). The summary needs these, and no run folder."""

    schema_version: Literal[2] = 2
    """2: `not_refused_rate` for what version 1 called `attack_success_rate`, where a judge of refusals was asked."""
    condition: str
    system: str
    seed: int
    recipe: dict[str, Any]
    """The settings that differ from the defaults (`settings_without_defaults`); older files hold all of them."""
    recipe_sha256: str
    """Hash of all settings, from the manifest."""
    prompts_sha256: str
    made_by: dict[str, Any]
    """Commit, versions and machine, from the manifest."""
    timings_s: dict[str, Seconds]
    training_s: Seconds | None
    """Seconds of the stage align over all sessions that ended in order, of the run that trained the adapter; None for a
    system that trains nothing."""
    trained_tokens: Count | None
    """Tokens of the rows of all steps, without padding; None for a system that trains nothing."""
    scores: tuple[Score, ...]
    """Scores of the condition's system and of the model as it came."""
    answered: tuple[SuiteShares, ...]
    positions: tuple[PositionScore, ...] = ()
    """The decision with CoT on of every prompt to refuse or to comply with; older files have none."""
    operating_point: OperatingPoint | None = None
    """None if the adapter was never rescaled."""
    head_fit: HeadFit | None = None
    """How well the head learned p′; None without a head, and in older files."""
    trained_by: TrainedBy | None = None
    """The run from which the training was copied; None if the run trained its own adapter."""

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, result: Any) -> Any:
        """Return a result of version 1 with the names of version 2."""
        if not isinstance(result, dict):
            return result
        if result.get("schema_version") == 1:
            rows = result.get("scores")
            result = result | {"schema_version": 2, "scores": _renamed(rows) if isinstance(rows, list) else rows}
        # What comes out of here is no JSON any more, and a strict record then takes tuples only.
        return {key: tuple(value) if isinstance(value, list) else value for key, value in result.items()}


def _renamed(rows: list[Any]) -> list[Any]:
    """Return rows of version 1, renamed where the same judge gave a rate of refusals, too."""

    def cell(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(name) for name in ("system", "thinking", "suite", "seed"))

    if not all(isinstance(row, dict) for row in rows):
        return rows
    for prefix in ("", "thought_"):
        refused = {cell(row) for row in rows if row.get("metric") == f"{prefix}refusal_rate"}
        old, new = f"{prefix}attack_success_rate", f"{prefix}not_refused_rate"
        rows = [row | {"metric": new} if row.get("metric") == old and cell(row) in refused else row for row in rows]
    return rows


Over = Literal["seeds and prompts", "seeds", "prompts"]
"""What an interval spans. Over seeds alone it says nothing of other prompts; over prompts, nothing of other seeds."""


Verdict = Literal["shown", "refuted", "not shown", "one seed"]
"""What the data says of an endpoint."""


class StudyScore(Score):
    """A condition's mean over seeds. `n` is the least number of prompts that a seed had judged answers to."""

    num_seeds: int
    """Seeds with a value; 0 for the model as it came."""
    over: Over


class StudyOperatingPoint(OperatingPoint):
    """The operating point of one run of a study."""

    condition: str
    seed: int


class StudyHeadFit(HeadFit):
    """How well the head of one run of a study learned p′."""

    condition: str
    seed: int


class MetricDifference(Record):
    """Difference between a condition and the baseline in any metric, paired by seed and, if it can be, by prompt."""

    condition: str
    thinking: Thinking
    suite: str
    metric: str
    difference: float
    low: float | None
    high: float | None
    p: Rate | None
    """Not corrected for the number of lines; None if one seed without values of prompts is all there is."""
    num_seeds: int
    over: Over


class EndpointResult(Record):
    """What a study found on one line of an endpoint, declared before its runs."""

    endpoint: Endpoint
    condition: str
    difference: float
    low: float
    high: float
    p_holm: Rate
    """p corrected for all lines of all endpoints."""
    num_seeds: int
    over: Over
    verdict: Verdict
    """Shown: the whole interval exceeds the endpoint's bound, and p_holm < .05. Refuted: the whole interval is below
    the bound. One seed says nothing about training, so it has no verdict."""
    head_fitted: bool = Field(default=True, exclude_if=lambda fitted: fitted)
    """False if the head of a seed did not fit: the line then says nothing of what the head is worth."""


class TrainingCost(Record):
    """The cost of one training of a condition, mean over its seeds; None for a condition that trains nothing."""

    condition: str
    num_seeds: int
    training_s: Seconds | None
    trained_tokens: float | None


class StudySummary(Record):
    """The contents of a study's tables. `missing` names the runs that are not done."""

    name: str
    recipe: str
    baseline: str
    conditions: tuple[str, ...]
    done: tuple[str, ...]
    missing: tuple[str, ...]
    scores: tuple[StudyScore, ...]
    endpoints: tuple[EndpointResult, ...] = ()
    """In the order of the study's declaration, the primary one first; none if it declared none."""
    declares_endpoints: bool = Field(default=False, exclude_if=lambda declares: not declares)
    """Whether the study declared endpoints, also before their first lines are there."""
    differences: tuple[Difference, ...]
    metric_differences: tuple[MetricDifference, ...]
    costs: tuple[TrainingCost, ...]
    operating_points: tuple[StudyOperatingPoint, ...] = ()
    head_fits: tuple[StudyHeadFit, ...] = Field(default=(), exclude_if=lambda fits: not fits)
