"""Methods that train nothing: the base model with the start of its thought prefilled."""

from __future__ import annotations

from presafe.methods.baselines import SAFEPATH_PRIMER
from presafe.methods.method import Method
from presafe.records import Prefill

LESS_THINK_THOUGHT = "Okay, the user ask for this, I can answer it without thinking much."
"""LessThink's thought, as other papers quote it."""

METHODS = {
    # The thought is closed before it begins.
    "zero_think": Method(
        title="ZeroThink",
        kind="rival",
        source="SafeChain, arXiv 2502.12025",
        description="the model as it came, an empty thought prefilled",
        prefill=Prefill("", closed=True),
    ),
    # One short thought, the same for every prompt.
    "less_think": Method(
        title="LessThink",
        kind="rival",
        source="SafeChain, arXiv 2502.12025",
        description="the model as it came, a thought of one fixed sentence prefilled",
        prefill=Prefill(LESS_THINK_THOUGHT, closed=True),
    ),
    # SafePath without training: the model continues the thought after the primer.
    "safepath_zero_shot": Method(
        title="SafePath, zero-shot",
        kind="rival",
        source="SafePath, arXiv 2505.14667",
        description="the model as it came, its thought begun with a primer of eight tokens",
        prefill=Prefill(SAFEPATH_PRIMER, closed=False),
    ),
}
