"""PreSafe without a teacher: p′ is 1 for the queries of harmful sets and 0 for the others."""

from __future__ import annotations

from presafe.methods.method import Method, Training
from presafe.methods.targets import own_words, refuse

METHOD = Method(
    title="PreSafe, data set's labels",
    kind="presafe",
    source="ours, an ablation of arXiv 2603.17368",
    description="PreSafe with p' from what each query's set expects: no teacher and no classifier",
    training=Training(refuse, own_words, labels="dataset", head="decision", start=True),
)
