"""PreSafe, section 4; with the recipe's `lambda_start` above 0 also our loss on the output (design/0005)."""

from __future__ import annotations

from presafe.methods.method import Method, Training
from presafe.methods.targets import own_words, refuse

METHOD = Method(
    title="PreSafe",
    kind="presafe",
    source="arXiv 2603.17368; λ_start is ours",
    description="next-token loss + λ · BCE of a head at the decision position + λ_start · the same of its next token",
    training=Training(refuse, own_words, head="decision", start=True),
)
