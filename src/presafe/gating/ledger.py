"""Account for each decision: in the counters, in the audit, and in the field `presafe` that the client gets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .audit import Audit
from .exchange import Asked
from .gate_file import Gate, Mode
from .metrics import Metrics
from .outcome import Outcome, calibrated


class Ledger:
    """Where decisions are written.

    Args:
        gate: The gate file.
        metrics: The counters.
        audit: The audit file; None writes none.

    Raises:
        GateError: the audit cannot be opened.
    """

    def __init__(self, gate: Gate, metrics: Metrics, audit: Path | None) -> None:
        self._gate, self._metrics = gate, metrics
        self._audit = None if audit is None else Audit(audit, metrics.audit_lost.inc)

    def settle(self, asked: Asked, mode: Mode, outcome: Outcome) -> dict[str, Any]:
        """Write what was decided about a request, and return the field `presafe`.

        Args:
            asked: The request.
            mode: Mode of the name that it asks.
            outcome: What was decided.
        """
        for probability in outcome.probabilities:
            self._metrics.probability.labels(asked.model).observe(probability)
        self._metrics.decisions.labels(asked.model, outcome.action).inc()
        if mode != "open":
            self._metrics.unread.labels(asked.model).inc(outcome.num_unread)
        if self._audit is not None:
            self._audit.write(
                time=time.time(),
                request=asked.request,
                model=asked.model,
                prompt_sha256=asked.prompt_sha256,
                p=outcome.probabilities,
                threshold=self._gate.threshold,
                action=outcome.action,
                unread=outcome.num_unread,
            )
        return {
            "request": asked.request,
            "action": outcome.action,
            "refuse_probability": outcome.probabilities,
            "calibrated_probability": [calibrated(p, self._gate.calibration) for p in outcome.probabilities],
            "threshold": self._gate.threshold,
            "unread": outcome.num_unread,
        }

    def close(self) -> None:
        """Close the audit."""
        if self._audit is not None:
            self._audit.close()
