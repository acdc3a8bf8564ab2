"""PreSafe: the safety decision before the chain of thought (arXiv 2603.17368).

Importing this package loads neither torch nor Inspect; each name below loads what it needs when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from presafe.alignment.trainer import PreSafeCollator, PreSafeConfig, PreSafeTrainer
    from presafe.config.measure import MeasureSettings
    from presafe.config.recipe import ModelSettings, Recipe, load_recipe
    from presafe.errors import PresafeError
    from presafe.evaluation.suites import load_suite
    from presafe.models.decision_head import DecisionHead
    from presafe.models.loading import load_model
    from presafe.records import Prompt
    from presafe.signals.classifier import Classifier, train_classifier
    from presafe.stages.report import report_data
    from presafe.stages.run_folder import RunFolder
    from presafe.workflows.measure import measure
    from presafe.workflows.run import run_stages

__version__ = "0.1.0"

_HOMES = {
    "Classifier": "presafe.signals.classifier",
    "DecisionHead": "presafe.models.decision_head",
    "MeasureSettings": "presafe.config.measure",
    "ModelSettings": "presafe.config.recipe",
    "PreSafeCollator": "presafe.alignment.trainer",
    "PreSafeConfig": "presafe.alignment.trainer",
    "PreSafeTrainer": "presafe.alignment.trainer",
    "PresafeError": "presafe.errors",
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

__all__ = [
    "Classifier",
    "DecisionHead",
    "MeasureSettings",
    "ModelSettings",
    "PreSafeCollator",
    "PreSafeConfig",
    "PreSafeTrainer",
    "PresafeError",
    "Prompt",
    "Recipe",
    "RunFolder",
    "load_model",
    "load_recipe",
    "load_suite",
    "measure",
    "report_data",
    "run_stages",
    "train_classifier",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'presafe' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
