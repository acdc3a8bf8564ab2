"""Methods that train on the next-token loss alone, and differ only in their targets."""

from __future__ import annotations

from presafe.methods.method import Case, Method, Target, Training
from presafe.methods.targets import own_words, refuse, refuse_after

DIRECT_REFUSAL_THOUGHT = "I should not answer this question!"
"""DirectRefusal's thought, as other papers quote it from the data set of Safety Tax."""

SAFEPATH_PRIMER = "Let's think about safety first."
"""The Safety Primer of SafePath: eight tokens with the tokenizer of R1."""


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
