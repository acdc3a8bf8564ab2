"""DirectRefusal: a fixed thought of one sentence, then a refusal (Safety Tax)."""

from __future__ import annotations

from presafe.methods.method import Case, Method, Target, Training
from presafe.methods.targets import own_words, refuse_after

THOUGHT = "I should not answer this question!"
"""As others quote it from the paper's data set."""


def _refuse(case: Case) -> Target:
    return refuse_after(THOUGHT, case)


METHOD = Method(
    title="DirectRefusal",
    kind="rival",
    source="Safety Tax, arXiv 2503.00555",
    description="next-token loss on refusals after one fixed sentence of thought",
    training=Training(_refuse, own_words),
)
