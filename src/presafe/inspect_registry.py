"""What Inspect finds through the package's entry point: the model provider, and a task a suite."""

from presafe.evaluation import tasks
from presafe.models import registry

__all__ = ["registry", "tasks"]
