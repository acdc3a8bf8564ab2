"""Count decisions for Prometheus; vLLM's own `/metrics` shows them."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

PROBABILITY = Histogram(
    "presafe_refuse_probability",
    "Probability of a refusal, read before the thought",
    ["model_name"],
    buckets=[step / 20 for step in range(1, 21)],
)
DECISIONS = Counter("presafe_decisions", "Requests by what was done", ["model_name", "action"])
UNREAD = Counter("presafe_unread", "Prompts without a decision", ["model_name"])
AUDIT_LOST = Counter("presafe_audit_lost", "Lines of the audit that could not be written")
