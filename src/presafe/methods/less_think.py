"""LessThink: one short thought, the same for every prompt."""

from __future__ import annotations

from presafe.methods.method import Method, Prefill

THOUGHT = "Okay, the user ask for this, I can answer it without thinking much."
"""As others quote it from the paper."""

METHOD = Method(
    title="LessThink",
    kind="rival",
    source="SafeChain, arXiv 2502.12025",
    description="the model as it came, a thought of one fixed sentence prefilled",
    prefill=Prefill(THOUGHT, closed=True),
)
