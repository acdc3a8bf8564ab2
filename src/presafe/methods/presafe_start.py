"""The loss on the output alone, without the paper's head (design/0005)."""

from __future__ import annotations

from presafe.methods.method import Method, Training
from presafe.methods.targets import own_words, refuse

METHOD = Method(
    title="PreSafe, output only",
    kind="presafe",
    source="ours",
    description="PreSafe without the head: L_SFT + λ_start · p' asked of the model's own next token",
    training=Training(refuse, own_words, start=True),
)
