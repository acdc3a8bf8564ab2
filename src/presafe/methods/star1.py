"""STAR-1: fine-tuning on a thousand thoughts that recall a safety policy, from the user's copy of its file."""

from __future__ import annotations

from presafe.methods.method import Method, Training
from presafe.methods.targets import own_words

METHOD = Method(
    title="STAR-1",
    kind="rival",
    source="STAR-1, arXiv 2504.01903",
    description="next-token loss on thoughts that recall a policy, and their answers, of a file",
    training=Training(own_words, own_words, labels="dataset", needs_data=True),
)
