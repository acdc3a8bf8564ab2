"""Register the model provider, the tasks and the judges as scorers with Inspect, through the entry point."""

from presafe.evaluation import tasks
from presafe.judges import scorers
from presafe.models import registry

__all__ = ["registry", "scorers", "tasks"]
