"""Records of a study: the numbers of one run, and the summary of all runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError

from presafe.config.recipe import Recipe
from presafe.records import Count, Difference, HeadFit, OperatingPoint, Record, Score, Seconds, SuiteShares, Thinking


def settings_without_defaults(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of a recipe that differ from the defaults; `parse_recipe` makes the same recipe of them.

    Args:
        recipe: The recipe. If it has a setting that must be written even at its default (the split of a data set on
            the hub), all settings are returned.
    """
    settings = recipe.model_dump(mode="json", exclude_defaults=True)
    # older files lack it, and mean another value (`config/stored.py`)
    settings["align"] = {**settings.get("align", {}), "standardize_head": recipe.align.standardize_head}
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

    schema_version: Literal[1] = 1
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
    operating_point: OperatingPoint | None = None
    """None if the adapter was never rescaled."""
    head_fit: HeadFit | None = None
    """How well the head learned p′; None without a head, and in older files."""
    trained_by: TrainedBy | None = None
    """The run from which the training was copied; None if the run trained its own adapter."""


class StudyScore(Score):
    """A condition's mean over seeds. `n` is the least number of prompts that a seed had judged answers to.

    The interval is over the `num_seeds` seeds with a value; with one seed, and for the model as it came (0 seeds),
    over prompts.
    """

    num_seeds: int


class StudyOperatingPoint(OperatingPoint):
    """The operating point of one run of a study."""

    condition: str
    seed: int


class StudyHeadFit(HeadFit):
    """How well the head of one run of a study learned p′."""

    condition: str
    seed: int


class SeedDifference(Record):
    """The difference between a condition and the baseline, paired by seed: mean and 95 % interval over seeds."""

    condition: str
    thinking: Thinking
    suite: str
    metric: str
    difference: float
    low: float | None
    high: float | None
    num_seeds: int


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
    differences: tuple[Difference, ...]
    seed_differences: tuple[SeedDifference, ...]
    costs: tuple[TrainingCost, ...]
    operating_points: tuple[StudyOperatingPoint, ...] = ()
    head_fits: tuple[StudyHeadFit, ...] = Field(default=(), exclude_if=lambda fits: not fits)
