"""PreSafe with the classifier's decisions cut at ½: is the softness of p′ worth something?"""

from __future__ import annotations

from presafe.methods.method import Method, Training
from presafe.methods.targets import own_words, refuse

METHOD = Method(
    title="PreSafe, hard labels",
    kind="presafe",
    source="ours, an ablation of arXiv 2603.17368",
    description="PreSafe with p' cut at 1/2: the classifier's decision without its doubt",
    training=Training(refuse, own_words, labels="hard", head="decision", start=True),
)
