"""SafePath without training: its primer opens every thought, and the model goes on from there."""

from __future__ import annotations

from presafe.methods.method import Method, Prefill
from presafe.methods.safepath import PRIMER

METHOD = Method(
    title="SafePath, zero-shot",
    kind="rival",
    source="SafePath, arXiv 2505.14667",
    description="the model as it came, its thought begun with a primer of eight tokens",
    prefill=Prefill(PRIMER, closed=False),
)
