"""Declarations of studies: TOML in, one recipe per run out.

    run = condition × seed        its recipe is that of the study, with the overrides of the study, then those of the
                                  condition, one system and one seed

Conditions differ in what is done to the model. All are measured alike: `[evaluate]` belongs to the study, so that every
difference between two conditions is paired by prompt.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from presafe.config.bounds import Name, Seed, Settings
from presafe.config.files import format_validation_error, merge_settings, read_toml, shipped_names
from presafe.config.recipe import Recipe, parse_recipe, recipe_settings
from presafe.errors import RecipeError
from presafe.records import Thinking

Seeds = Annotated[tuple[Seed, ...], Field(min_length=1)]


def _checked_align(settings: dict[str, Any]) -> dict[str, Any]:
    """Return overrides, after a check that they leave `align.systems` and `align.seeds` to the conditions."""
    align = settings.get("align", {})
    if not isinstance(align, dict):
        raise ValueError("`align` is a table of settings")
    if align.keys() & {"systems", "seeds"}:
        raise ValueError("`align.systems` and `align.seeds` are the condition's own `system` and `seeds`")
    return settings


class Endpoint(Settings):
    """One line of evidence that a study declares before its runs: a metric of a suite, conditions against the baseline.

    p is corrected over all lines of all endpoints (Holm), and over nothing else.
    """

    suite: str
    """Name of the suite; for `youden_j` and the AUROCs, the harmless half."""
    metric: str
    """Name of the metric, as in study.json."""
    thinking: Thinking = "on"
    """CoT mode."""
    conditions: tuple[str, ...] = ()
    """Names of the conditions that are compared with the baseline; none means all of them."""
    better: Literal["higher", "lower"] = "higher"
    """Direction that counts as an effect."""
    bound: float = Field(default=0.0, ge=0, le=1)
    """Difference from the baseline that the whole interval must exceed, in the better direction, as a share."""


class Condition(Settings):
    """One condition of a study: a method, its seeds and its overrides of the recipe."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+=-]*$", max_length=100)
    """Name in files and tables: letters, digits and . _ + = -"""
    system: str = "presafe"
    """The method, one of `align.systems`."""
    seeds: Seeds | None = None
    """One training per seed; None uses the study's seeds."""
    set: dict[str, Any] = Field(default={})
    """Settings of the recipe that the condition overrides, table by table: `align.lambda_align = 0.3`."""

    @field_validator("set")
    @classmethod
    def _check_overrides(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if of_study := settings.keys() & {"evaluate", "name"}:
            raise ValueError(f"`{of_study.pop()}` belongs to the study: all its conditions are measured alike")
        return _checked_align(settings)


class Study(Settings):
    """A study as its TOML file declares it."""

    name: Name
    """Title of the summary."""
    recipe: str
    """Recipe that all conditions override: name of a shipped one, or path of a TOML file from the working directory."""
    baseline: str
    """Name of the condition that the others are compared with."""
    seeds: Seeds = (0,)
    """Seeds of the conditions without their own."""
    seeds_move: Literal["training", "everything"] = "training"
    """What a run's seed moves: the training alone, or the recipe's `seed` and with it the drawn queries, the sampling
    and the classifier, too."""
    set: dict[str, Any] = Field(default={})
    """Settings of the recipe that are overridden in all conditions, `evaluate` included; a condition's own overrides
    have precedence."""
    condition: tuple[Condition, ...] = Field(min_length=1)
    """The conditions, in the order of the tables."""
    endpoint: tuple[Endpoint, ...] = ()
    """The endpoints, the primary one first. Without any, p is corrected over all leading rates, and the page says that
    none was declared."""

    @field_validator("set")
    @classmethod
    def _check_overrides(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if "name" in settings:
            raise ValueError("`name` is set for every run: its condition and seed")
        return _checked_align(settings)

    @model_validator(mode="after")
    def _check_names_and_seeds(self) -> Self:
        names = [condition.name for condition in self.condition]
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"two conditions are named {repeated[0]!r}")
        if "vanilla" in names:
            raise ValueError("`vanilla` is the model as it came; it is always measured, and cannot be a condition")
        if self.baseline not in names:
            raise ValueError(f"`baseline` is {self.baseline!r}, but the conditions are {', '.join(names)}")
        for name in (name for endpoint in self.endpoint for name in endpoint.conditions):
            if name not in names or name == self.baseline:
                raise ValueError(f"an endpoint compares {name!r}, which is no condition beside the baseline")
        for seeds in (self.seeds, *(condition.seeds or () for condition in self.condition)):
            if len(set(seeds)) < len(seeds):
                raise ValueError(f"a seed is repeated in {list(seeds)}")
        return self


class StudyRun(NamedTuple):
    """One run of a study."""

    condition: Condition
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Return the name of the run in files and tables."""
        return f"{self.condition.name}-seed{self.seed}"


def shipped_studies() -> list[str]:
    """Return the names of the studies that come with the package."""
    return shipped_names("study")


def load_study(study: str | Path) -> Study:
    """Load a study from a TOML file, or by the name of a shipped one.

    Args:
        study: Path of a TOML file, or a name such as "control".

    Raises:
        RecipeError: no such study, not TOML, or a key that is unknown, missing, repeated or out of bounds.
    """
    try:
        return Study.model_validate(read_toml("study", study))
    except ValidationError as error:
        raise RecipeError(f"study {study}: {format_validation_error(error, 'study')}.") from error


def study_runs(study: Study) -> list[StudyRun]:
    """Return every run: the first seed of each condition, then the second, so that an unfinished study compares all.

    Args:
        study: The study.

    Raises:
        RecipeError: the recipe cannot be read, or is invalid with the overrides of the study or of a condition.
    """
    base = recipe_settings(study.recipe)
    parse_recipe(base, study.recipe)  # first alone, so that an error names the right file
    base = merge_settings(study.set, base)
    parse_recipe(base, f"{study.recipe} as the study sets it")
    runs = []
    for condition in study.condition:
        for place, seed in enumerate(condition.seeds or study.seeds):
            own: dict[str, Any] = {
                "name": f"{condition.name}-seed{seed}",
                "align": {"systems": [condition.system], "seeds": [seed]},
            }
            if study.seeds_move == "everything":
                own["seed"] = seed
            recipe = parse_recipe(
                merge_settings(own, merge_settings(condition.set, base)),
                f"{study.recipe} as condition {condition.name!r} sets it",
            )
            runs.append((place, StudyRun(condition, seed, recipe)))
    return [run for _, run in sorted(runs, key=lambda place_and_run: place_and_run[0])]
