"""Read the recipes that runs have stored, also those of older releases."""

from __future__ import annotations

from typing import Any

from presafe.config.recipe import AlignSettings, Recipe, parse_recipe
from presafe.config.sources import source_class


def parse_stored_recipe(settings: dict[str, Any], source: str) -> Recipe:
    """Check the settings that a run has stored, and bring those of an older release to today's form.

    A setting that is newer than the run gets its default, except where the default is another behavior than the run's.

    Args:
        settings: What `recipe.json`, or the result of a study's run, holds.
        source: File that holds them, for errors.

    Raises:
        RecipeError: a key that is unknown, missing or out of bounds; all of them are named.
    """
    upgraded = {name: _upgrade_stage(stage) for name, stage in settings.items()}
    if isinstance(align := upgraded.get("align"), dict):
        upgraded["align"] = _upgrade_head(align)
    if isinstance(evaluate := upgraded.get("evaluate"), dict):
        upgraded["evaluate"] = _upgrade_draw(evaluate)
    return parse_recipe(upgraded, source)


def _upgrade_head(align: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of stage align with those of the head; before 0.2 it was raw and had the adapter's rate."""
    if "standardize_head" in align:
        return align
    rate = align.get("head_learning_rate") or align.get("learning_rate", AlignSettings().learning_rate)
    return align | {"standardize_head": False, "head_learning_rate": rate}


def _upgrade_draw(evaluate: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of stage evaluate with the draw: a suite with `n` gave its first prompts."""
    suites = evaluate.get("suites")
    tables = suites.values() if isinstance(suites, dict) else ()
    has_limit = any(isinstance(table, dict) and table.get("n") is not None for table in tables)
    return {"draw": "first"} | evaluate if has_limit else evaluate


def _upgrade_stage(stage: object) -> object:
    """Return the settings of a stage with today's tables of sources."""
    if not isinstance(stage, dict):
        return stage
    upgraded = dict(stage)
    for key in ("classifier_queries", "alignment_queries"):
        if isinstance(tables := stage.get(key), list):
            upgraded[key] = [_upgrade_source(table) for table in tables]
    if isinstance(suites := stage.get("suites"), dict):
        upgraded["suites"] = {name: _upgrade_source(table) for name, table in suites.items()}
    return upgraded


def _upgrade_source(table: object) -> object:
    """Return the table of a source without what older releases stored for the other origins.

    They had one class for all origins, so each table held every key: None, or its default, where it had no effect.
    They also spelled `license` as `licence`.
    """
    if not isinstance(table, dict):
        return table
    renamed = {"license" if key == "licence" else key: value for key, value in table.items()}
    try:
        own_keys = source_class(renamed).model_fields.keys()
    except ValueError:
        return table  # `parse_recipe` says what is wrong with it
    unset: tuple[object, ...] = (None, {}, "held_out")
    return {key: value for key, value in renamed.items() if key in own_keys or value not in unset}
