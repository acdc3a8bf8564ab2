"""Fine-tuning alone: what PreSafe is without its auxiliary loss."""

from __future__ import annotations

from presafe.methods.method import Method, Training
from presafe.methods.targets import own_words, refuse

METHOD = Method(
    title="SFT only (λ = 0)",
    kind="baseline",
    source="the baseline of PreSafe, arXiv 2603.17368",
    description="next-token loss only, on the same rows: refusals of harmful queries, own answers to harmless ones",
    training=Training(refuse, own_words),
)
