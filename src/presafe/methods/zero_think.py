"""ZeroThink: the thought is closed before it begins."""

from __future__ import annotations

from presafe.methods.method import Method, Prefill

METHOD = Method(
    title="ZeroThink",
    kind="rival",
    source="SafeChain, arXiv 2502.12025",
    description="the model as it came, an empty thought prefilled",
    prefill=Prefill("", closed=True),
)
