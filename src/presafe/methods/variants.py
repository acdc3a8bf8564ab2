"""PreSafe (section 4 of the paper) and its variants."""

from __future__ import annotations

from presafe.methods.method import Case, Method, Target, Training
from presafe.methods.targets import SAFE_THOUGHT, own_words, refuse, refuse_after


def _refuse_after_thought(case: Case) -> Target:
    return refuse_after(SAFE_THOUGHT, case)


METHODS = {
    # With the recipe's `lambda_start` above 0 it also has our loss on the output (design/0005).
    "presafe": Method(
        title="PreSafe + L_start (ours)",
        kind="presafe",
        source="arXiv 2603.17368; λ_start is ours",
        description=(
            "next-token loss + λ · BCE of a head at the decision position + λ_start · the same of its next token"
        ),
        training=Training(refuse, own_words, head="decision", start=True),
    ),
    # The paper's loss exactly, whatever `lambda_start` the recipe sets.
    "presafe_head": Method(
        title="PreSafe (paper)",
        kind="presafe",
        source="arXiv 2603.17368",
        description="PreSafe without the loss on the output: L_SFT + λ · L_align",
        training=Training(refuse, own_words, head="decision"),
    ),
    # Our loss on the output alone, without the paper's head (design/0005).
    "presafe_start": Method(
        title="L_start alone (ours)",
        kind="presafe",
        source="ours",
        description="PreSafe without the head: L_SFT + λ_start · p' asked of the model's own next token",
        training=Training(refuse, own_words, start=True),
    ),
    # Refusals come after a short safe thought, whatever `refusal_target` the recipe sets.
    "presafe_thought": Method(
        title="PreSafe, short thought",
        kind="presafe",
        source="arXiv 2603.17368; the form of the refusal is ours",
        description="PreSafe with refusals after one sentence of thought",
        training=Training(_refuse_after_thought, own_words, head="decision", start=True),
    ),
    # Tests whether the softness of p′ is useful: the classifier's decisions are cut at ½.
    "presafe_hard": Method(
        title="PreSafe, hard labels",
        kind="presafe",
        source="ours, an ablation of arXiv 2603.17368",
        description="PreSafe with p' cut at 1/2: the classifier's decision without its doubt",
        training=Training(refuse, own_words, labels="hard", head="decision", start=True),
    ),
    # No teacher: p′ is 1 for the queries of harmful sets and 0 for the others.
    "presafe_dataset_labels": Method(
        title="PreSafe, data set's labels",
        kind="presafe",
        source="ours, an ablation of arXiv 2603.17368",
        description="PreSafe with p' from what each query's set expects: no teacher and no classifier",
        training=Training(refuse, own_words, labels="dataset", head="decision", start=True),
    ),
}
