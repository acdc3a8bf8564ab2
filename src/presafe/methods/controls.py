"""Controls: PreSafe with a signal that carries no information, or with no gradient from the head."""

from __future__ import annotations

from presafe.methods.method import Method, Training
from presafe.methods.targets import own_words, refuse

METHODS = {
    # A control of the signal: p′ is a fair coin, whatever the query.
    "random_labels": Method(
        title="Random labels (control)",
        kind="control",
        source="ours",
        description="PreSafe with p' replaced by fair coins",
        training=Training(refuse, own_words, labels="random", head="decision", start=True),
    ),
    # A control of the signal: the right values of p′ on the wrong queries, so their mean and softness are kept.
    "shuffled_labels": Method(
        title="Shuffled labels (control)",
        kind="control",
        source="ours",
        description="PreSafe with the classifier's p' dealt out to other queries",
        training=Training(refuse, own_words, labels="shuffled", head="decision", start=True),
    ),
    # A control of the gradient: the head learns p′ from h, and h learns nothing from the head. L_start is off, so no
    # gradient of p′ reaches the adapter. One effect of the auxiliary loss is left: the head's gradient is clipped
    # together with the adapter's, so where their norm is above 1, the adapter's steps are shorter than under SFT. The
    # control therefore separates the direction of the gradient from this brake.
    "detached_head": Method(
        title="Detached head (control)",
        kind="control",
        source="ours",
        description="PreSafe whose head is trained, but sends no gradient into the model; L_start is off",
        training=Training(refuse, own_words, head="detached"),
    ),
}
