"""PreSafe as the paper has it, whatever `lambda_start` the recipe sets."""

from __future__ import annotations

from presafe.methods.method import Method, Training
from presafe.methods.targets import own_words, refuse

METHOD = Method(
    title="PreSafe, head only",
    kind="presafe",
    source="arXiv 2603.17368",
    description="PreSafe without the loss on the output: L_SFT + λ · L_align",
    training=Training(refuse, own_words, head="decision"),
)
