"""PreSafe: the safety decision before the chain of thought (arXiv 2603.17368).

Importing this package loads neither torch nor Inspect; each name below loads what it needs when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the names of `_HOMES`, for type checkers; "as" marks them as public
    from presafe.alignment.trainer import PreSafeCollator as PreSafeCollator
    from presafe.alignment.trainer import PreSafeConfig as PreSafeConfig
    from presafe.alignment.trainer import PreSafeTrainer as PreSafeTrainer
    from presafe.config.measure import MeasureSettings as MeasureSettings
    from presafe.config.recipe import ModelSettings as ModelSettings
    from presafe.config.recipe import Recipe as Recipe
    from presafe.config.recipe import load_recipe as load_recipe
    from presafe.errors import PreSafeError as PreSafeError
    from presafe.evaluation.suites import load_suite as load_suite
    from presafe.models.decision_head import DecisionHead as DecisionHead
    from presafe.models.loading import load_model as load_model
    from presafe.records import Prompt as Prompt
    from presafe.signals.classifier import Classifier as Classifier
    from presafe.signals.classifier import train_classifier as train_classifier
    from presafe.stages.report import report_data as report_data
    from presafe.stages.run_folder import RunFolder as RunFolder
    from presafe.workflows.measure import measure as measure
    from presafe.workflows.run import run_stages as run_stages

__version__ = "0.2.0"

_HOMES = {
    "Classifier": "presafe.signals.classifier",
    "DecisionHead": "presafe.models.decision_head",
    "MeasureSettings": "presafe.config.measure",
    "ModelSettings": "presafe.config.recipe",
    "PreSafeCollator": "presafe.alignment.trainer",
    "PreSafeConfig": "presafe.alignment.trainer",
    "PreSafeTrainer": "presafe.alignment.trainer",
    "PreSafeError": "presafe.errors",
    "Prompt": "presafe.records",
    "Recipe": "presafe.config.recipe",
    "RunFolder": "presafe.stages.run_folder",
    "load_model": "presafe.models.loading",
    "load_recipe": "presafe.config.recipe",
    "load_suite": "presafe.evaluation.suites",
    "measure": "presafe.workflows.measure",
    "report_data": "presafe.stages.report",
    "run_stages": "presafe.workflows.run",
    "train_classifier": "presafe.signals.classifier",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'presafe' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__, "__version__"]
