"""Reasoning-to-Defend: each step of a thought ends in a word that says whether it is safe, set against its opposite.

    L = L_SFT + L_CPO,  L_CPO = −ln σ(ln P(t⁺) − ln P(t⁻))                     (sections 3.2 and 3.3, equation 4)

t⁺ is the right pivot and t⁻ the other. A step is a paragraph; L_CPO reads the first pivot of a row. The pivots are
words of the model's own vocabulary, since the adapter carries no new embeddings. Without a guard model that would ask
for it there is no [RETHINK].
"""

from __future__ import annotations

from presafe.methods.method import Case, Method, Target, Training
from presafe.methods.targets import SAFE_THOUGHT, own_words, refuse_after

UNSAFE, SAFE = " [UNSAFE]", " [SAFE]"
"""The paper's pivots."""


def _refuse(case: Case) -> Target:
    return refuse_after(SAFE_THOUGHT, case, rest=UNSAFE)


def _keep(case: Case) -> Target | None:
    target = own_words(case)
    if target is None:
        return None
    first, *others = (target.thought or "").split("\n\n")
    return target._replace(thought=first, rest="".join([SAFE, *(f"\n\n{step}{SAFE}" for step in others)]))


METHOD = Method(
    title="Reasoning-to-Defend",
    kind="rival",
    source="Reasoning-to-Defend, arXiv 2502.12970",
    description="next-token loss on thoughts whose steps end in [SAFE] or [UNSAFE] + contrastive loss between the two",
    training=Training(_refuse, _keep, labels="dataset", start=True, lambda_start=1.0, pivots=(UNSAFE, SAFE)),
)
