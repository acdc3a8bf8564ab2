"""The control that would settle the claim: p′ is a fair coin, whatever the query."""

from __future__ import annotations

from presafe.methods.method import Method, Training
from presafe.methods.targets import own_words, refuse

METHOD = Method(
    title="Random labels (control)",
    kind="control",
    source="ours",
    description="PreSafe with p' replaced by fair coins",
    training=Training(refuse, own_words, labels="random", head="decision", start=True),
)
