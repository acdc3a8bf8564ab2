"""Reasoning-to-Defend: each step of a thought ends in a word that says whether the step is safe.

    L = L_SFT + L_CPO,  L_CPO = −ln σ(ln P(t⁺) − ln P(t⁻))                     (sections 3.2 and 3.3, equation 4)

t⁺ is the right pivot and t⁻ the other. A step is a paragraph; L_CPO reads the first pivot of a row. The pivots are
words of the model's own vocabulary, because the adapter carries no new embeddings. There is no [RETHINK], because no
guard model is used that could ask for it.
"""

from __future__ import annotations

from presafe.methods.method import Case, Method, Target, Training
from presafe.methods.targets import SAFE_THOUGHT, own_words, refuse_after

UNSAFE, SAFE = " [UNSAFE]", " [SAFE]"
"""The paper's pivots."""


def _refuse_as_unsafe(case: Case) -> Target:
    return refuse_after(SAFE_THOUGHT, case, rest=UNSAFE)


def _keep_as_safe(case: Case) -> Target | None:
    target = own_words(case)
    if target is None:
        return None
    first_step, *later_steps = (target.thought or "").split("\n\n")
    rest = SAFE + "".join(f"\n\n{step}{SAFE}" for step in later_steps)
    return target._replace(thought=first_step, rest=rest, token_ids=None)


METHODS = {
    "r2d": Method(
        title="Reasoning-to-Defend",
        kind="rival",
        source="Reasoning-to-Defend, arXiv 2502.12970",
        description=(
            "next-token loss on thoughts whose steps end in [SAFE] or [UNSAFE] + contrastive loss between the two"
        ),
        training=Training(
            _refuse_as_unsafe, _keep_as_safe, labels="dataset", start=True, lambda_start=1.0, pivots=(UNSAFE, SAFE)
        ),
    )
}
