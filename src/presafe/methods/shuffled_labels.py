"""A control with the right p′ on the wrong queries: their share and their softness stay."""

from __future__ import annotations

from presafe.methods.method import Method, Training
from presafe.methods.targets import own_words, refuse

METHOD = Method(
    title="Shuffled labels (control)",
    kind="control",
    source="ours",
    description="PreSafe with the classifier's p' dealt out to other queries",
    training=Training(refuse, own_words, labels="shuffled", head="decision", start=True),
)
