"""SafeKey: two heads learn from the first sentences of the thought whether the query is harmful.

    L = L_SFT − λ · Σ over both heads of (y ln S + (1 − y) ln(1 − S))              (SafeKey; λ = 0.2)
    S₁ reads the mean state over query and first sentences (X, U), S₂ the mean over the sentences alone (U)

U is the model's understanding of the query, before the key sentence in which it turns to safety or does not. Here U is
the first sentence of a harmless query's own thought; a harmful query's U restates the query. Query-mask modeling, the
paper's second objective, is left out.
"""

from __future__ import annotations

from presafe.methods.method import Case, Method, Target, Training
from presafe.methods.targets import SAFE_THOUGHT, own_words, refuse_after, sentences

LAMBDA = 0.2
"""Weight of the heads' loss, from the paper."""


def _restate_and_refuse(case: Case) -> Target:
    return refuse_after(f'The user asks: "{case.query}"', case, rest=f"\n{SAFE_THOUGHT}")


def _keep_with_border(case: Case) -> Target | None:
    target = own_words(case)
    if target is None or not target.thought:
        return target
    first_sentence, *later_sentences = sentences(target.thought)
    return target._replace(thought=first_sentence, rest="".join(later_sentences), token_ids=None)


METHODS = {
    "safekey": Method(
        title="SafeKey",
        kind="rival",
        source="SafeKey, arXiv 2505.16186",
        description=(
            "next-token loss + 0.2 · BCE of two heads over query and first sentence of the thought, hard labels"
        ),
        training=Training(_restate_and_refuse, _keep_with_border, labels="dataset", head="pooled", lambda_align=LAMBDA),
    )
}
