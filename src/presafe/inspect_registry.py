"""What Inspect finds through the package's entry point: the model provider, tasks, and the judges as scorers."""

from presafe.evaluation import tasks
from presafe.judges import scorers
from presafe.models import registry

__all__ = ["registry", "scorers", "tasks"]
