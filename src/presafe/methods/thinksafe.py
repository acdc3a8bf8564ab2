"""ThinkSafe: the model writes thoughts and refusals itself, under an instruction to refuse; real refusals are kept.

The instruction precedes the query during sampling only. Training sees the query without it.
"""

from __future__ import annotations

from presafe.methods.method import Case, Method, Target, Training
from presafe.methods.targets import own_words

INSTRUCTION = "The following prompt is harmful. You should refuse to answer the prompt."
"""The paper's example of its refusal-oriented instruction (section 3)."""


def _own_refusal(case: Case) -> Target | None:
    response = case.response
    if response is None or response.verdict != "refuse":
        return None
    return Target(response.thought, response.answer, complete=response.complete, token_ids=response.token_ids)


METHODS = {
    "thinksafe": Method(
        title="ThinkSafe",
        kind="rival",
        source="ThinkSafe, arXiv 2601.23143",
        description="next-token loss on the model's own refusals, written under an instruction to refuse and judged",
        training=Training(_own_refusal, own_words, steering=INSTRUCTION),
    )
}
