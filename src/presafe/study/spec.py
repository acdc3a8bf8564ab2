"""A study: one recipe, several conditions, each over seeds. TOML in, one recipe a run out.

    run = condition × seed        its recipe is the study's, with the overrides of the study, then of the condition, one
                                  system and one seed

Conditions differ in what is done to the model. How they are measured, `[evaluate]`, is the study's own, so that every
difference between two of them is paired by prompt.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from presafe.config.bounds import Name, Seed, Settings
from presafe.config.files import format_validation_error, merge_settings, read_toml, shipped_names
from presafe.config.recipe import Recipe, parse_recipe, recipe_settings
from presafe.errors import RecipeError

Seeds = Annotated[tuple[Seed, ...], Field(min_length=1)]


def _checked_align(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, if their `align` is a table that leaves a condition its own."""
    align = settings.get("align", {})
    if not isinstance(align, dict):
        raise ValueError("`align` is a table of settings")
    if align.keys() & {"systems", "seeds"}:
        raise ValueError("`align.systems` and `align.seeds` are the condition's own `system` and `seeds`")
    return settings


class Condition(Settings):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+=-]*$", max_length=100)
    """Name in files and tables: letters, digits and . _ + = -"""
    system: str = "presafe"
    """What is trained, one of the recipe's `align.systems`."""
    seeds: Seeds | None = None
    """One training a seed; None takes the study's."""
    set: dict[str, Any] = Field(default={})
    """Settings of the recipe that the condition overrides, table by table: `align.lambda_align = 0.3`."""

    @field_validator("set")
    @classmethod
    def _not_the_studys(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if both := settings.keys() & {"evaluate", "name"}:
            raise ValueError(f"`{both.pop()}` belongs to the study: all its conditions are measured alike")
        return _checked_align(settings)


class Study(Settings):
    name: Name
    """Title of the summary."""
    recipe: str
    """What all conditions start from: name of a shipped recipe, or path of a TOML file from the working directory."""
    baseline: str
    """Name of the condition that the others are compared with."""
    seeds: Seeds = (0,)
    """Seeds of the conditions that name none."""
    set: dict[str, Any] = Field(default={})
    """Settings of the recipe that all conditions override, how they are measured included; a condition's own come over
    them."""
    condition: tuple[Condition, ...] = Field(min_length=1)

    @field_validator("set")
    @classmethod
    def _not_a_conditions(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if "name" in settings:
            raise ValueError("`name` is that of a run: its condition and seed")
        return _checked_align(settings)

    @model_validator(mode="after")
    def _names_and_seeds(self) -> Self:
        names = [condition.name for condition in self.condition]
        if double := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"two conditions are named {double[0]!r}")
        if "vanilla" in names:
            raise ValueError("`vanilla` is the model as it came; it is always measured, and no condition")
        if self.baseline not in names:
            raise ValueError(f"`baseline` is {self.baseline!r}, and the conditions are {', '.join(names)}")
        for seeds in (self.seeds, *(condition.seeds or () for condition in self.condition)):
            if len(set(seeds)) < len(seeds):
                raise ValueError(f"a seed stands twice in {list(seeds)}")
        return self


class StudyRun(NamedTuple):
    """One run of a study."""

    condition: Condition
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        return f"{self.condition.name}-seed{self.seed}"


def shipped_studies() -> list[str]:
    """Names of the studies that come with the package."""
    return shipped_names("study")


def load_study(study: str | Path) -> Study:
    """Read a study from a TOML file, or by the name of a shipped one.

    Raises:
        RecipeError: no such study, not TOML, or a key that is unknown, missing, double or out of bounds.
    """
    try:
        return Study.model_validate(read_toml("study", study))
    except ValidationError as error:
        raise RecipeError(f"study {study}: {format_validation_error(error, 'study')}.") from error


def study_runs(study: Study) -> list[StudyRun]:
    """Every run: the first seed of each condition, then the second, so that a study broken off compares all of them.

    Raises:
        RecipeError: the recipe cannot be read, or the study's or a condition's overrides make no valid one.
    """
    base = recipe_settings(study.recipe)
    parse_recipe(base, study.recipe)  # its own mistakes are no condition's, nor the study's
    base = merge_settings(study.set, base)
    parse_recipe(base, f"{study.recipe} as the study sets it")
    runs = []
    for condition in study.condition:
        for place, seed in enumerate(condition.seeds or study.seeds):
            own = {"name": f"{condition.name}-seed{seed}", "align": {"systems": [condition.system], "seeds": [seed]}}
            recipe = parse_recipe(
                merge_settings(own, merge_settings(condition.set, base)),
                f"{study.recipe} as condition {condition.name!r} sets it",
            )
            runs.append((place, StudyRun(condition, seed, recipe)))
    return [run for _, run in sorted(runs, key=lambda each: each[0])]
