"""UnsafeChain: fine-tuning on corrected responses to prompts that had unsafe ones, from the user's copy of its file."""

from __future__ import annotations

from presafe.methods.method import Method, Training
from presafe.methods.targets import own_words

METHOD = Method(
    title="UnsafeChain",
    kind="rival",
    source="UnsafeChain, arXiv 2507.21652",
    description="next-token loss on corrected responses to hard prompts, of a file",
    training=Training(own_words, own_words, labels="dataset", needs_data=True),
)
