"""Methods that train on the next-token loss alone, and differ only in their targets."""

from __future__ import annotations

from presafe.methods.method import AdapterShape, Case, Method, Target, Training
from presafe.methods.targets import own_words, refuse, refuse_after

DIRECT_REFUSAL_THOUGHT = "I should not answer this question!"
"""DirectRefusal's thought, as other papers quote it from the data set of Safety Tax."""

SAFEPATH_PRIMER = "Let's think about safety first."
"""The Safety Primer of SafePath: eight tokens with the tokenizer of R1."""


MIDDLE_RANK_1 = AdapterShape(rank=1, targets=("up_proj",), depth=(1 / 3, 2 / 3))
"""Rank 1 on the up-projections of the middle layers (arXiv 2507.17075); that the middle is a third is ours."""


def _refuse_after_fixed_thought(case: Case) -> Target:
    return refuse_after(DIRECT_REFUSAL_THOUGHT, case)


def _primer_alone(case: Case) -> Target:
    return Target(SAFEPATH_PRIMER, None)


METHODS = {
    # What is left of PreSafe without its auxiliary loss.
    "sft": Method(
        title="SFT only (λ = 0)",
        kind="baseline",
        source="the baseline of PreSafe, arXiv 2603.17368",
        description="next-token loss only, on the same rows: refusals of harmful queries, own answers to harmless ones",
        training=Training(refuse, own_words),
    ),
    # L_start with the data set's labels is −ln P of the deciding token, so `lambda_start` weights that token up.
    "sft_weighted": Method(
        title="SFT, deciding token weighted",
        kind="baseline",
        source="ours",
        description="next-token loss, the token that decides between thought and refusal weighted up by λ_start",
        training=Training(refuse, own_words, labels="dataset", start=True),
    ),
    # The paper's finding: one rank in the middle of the model is enough for safety, and costs little reasoning.
    "sft_rank_1": Method(
        title="SFT, rank 1 in the middle",
        kind="baseline",
        source="arXiv 2507.17075",
        description="next-token loss only, through a LoRA of rank 1 on up_proj of the middle third of the blocks",
        training=Training(refuse, own_words, adapter=MIDDLE_RANK_1),
    ),
    "direct_refusal": Method(
        title="DirectRefusal",
        kind="rival",
        source="Safety Tax, arXiv 2503.00555",
        description="next-token loss on refusals after one fixed sentence of thought",
        training=Training(_refuse_after_fixed_thought, own_words),
    ),
    # Harmful queries teach a primer at the start of the thought, and nothing after it.
    "safepath": Method(
        title="SafePath",
        kind="rival",
        source="SafePath, arXiv 2505.14667",
        description="next-token loss on the primer alone for harmful queries, on whole own answers for harmless ones",
        training=Training(_primer_alone, own_words),
    ),
    # The next three learn from the user's copy of the paper's file (`align.data`).
    "safechain": Method(
        title="SafeChain",
        kind="rival",
        source="SafeChain, arXiv 2502.12025",
        description="next-token loss on safe thoughts and answers of a file",
        training=Training(own_words, own_words, labels="dataset", needs_data=True),
    ),
    "star1": Method(
        title="STAR-1",
        kind="rival",
        source="STAR-1, arXiv 2504.01903",
        description="next-token loss on thoughts that recall a policy, and their answers, of a file",
        training=Training(own_words, own_words, labels="dataset", needs_data=True),
    ),
    "unsafechain": Method(
        title="UnsafeChain",
        kind="rival",
        source="UnsafeChain, arXiv 2507.21652",
        description="next-token loss on corrected responses to hard prompts, of a file",
        training=Training(own_words, own_words, labels="dataset", needs_data=True),
    ),
}
