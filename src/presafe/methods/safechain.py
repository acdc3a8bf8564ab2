"""SafeChain: fine-tuning on a stronger model's safe thoughts and answers, from the user's copy of its file."""

from __future__ import annotations

from presafe.methods.method import Method, Training
from presafe.methods.targets import own_words

METHOD = Method(
    title="SafeChain",
    kind="rival",
    source="SafeChain, arXiv 2502.12025",
    description="next-token loss on safe thoughts and answers of a file",
    training=Training(own_words, own_words, labels="dataset", needs_data=True),
)
