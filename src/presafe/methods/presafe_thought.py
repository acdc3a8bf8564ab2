"""PreSafe whose refusals come after a short safe thought, whatever `refusal_target` the recipe sets."""

from __future__ import annotations

from presafe.methods.method import Case, Method, Target, Training
from presafe.methods.targets import SAFE_THOUGHT, own_words, refuse_after


def _refuse(case: Case) -> Target:
    return refuse_after(SAFE_THOUGHT, case)


METHOD = Method(
    title="PreSafe, short thought",
    kind="presafe",
    source="arXiv 2603.17368; the form of the refusal is ours",
    description="PreSafe with refusals after one sentence of thought",
    training=Training(_refuse, own_words, head="decision", start=True),
)
