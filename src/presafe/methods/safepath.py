"""SafePath: harmful queries teach a primer at the start of the thought, and nothing of what follows it."""

from __future__ import annotations

from presafe.methods.method import Case, Method, Target, Training
from presafe.methods.targets import own_words

PRIMER = "Let's think about safety first."
"""The paper's Safety Primer, eight tokens with the tokenizer of R1."""


def _primer(case: Case) -> Target:
    return Target(PRIMER, None)


METHOD = Method(
    title="SafePath",
    kind="rival",
    source="SafePath, arXiv 2505.14667",
    description="next-token loss on the primer alone for harmful queries, on whole own answers for harmless ones",
    training=Training(_primer, own_words),
)
