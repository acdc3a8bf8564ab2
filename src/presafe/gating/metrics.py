"""Count decisions for Prometheus, by served name."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram


class Metrics:
    """The counters of a gate.

    Args:
        registry: Where Prometheus reads them.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.probability = Histogram(
            "presafe_refuse_probability",
            "Probability of a refusal, read before the thought",
            ["model_name"],
            buckets=[step / 20 for step in range(1, 21)],
            registry=registry,
        )
        self.decisions = Counter(
            "presafe_decisions", "Requests by what was done", ["model_name", "action"], registry=registry
        )
        self.unread = Counter("presafe_unread", "Prompts without a decision", ["model_name"], registry=registry)
        self.audit_lost = Counter(
            "presafe_audit_lost", "Lines of the audit that could not be written", registry=registry
        )
