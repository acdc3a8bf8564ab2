"""Controls: PreSafe with a signal that carries no information, or with no gradient from the head."""

from __future__ import annotations

from presafe.methods.method import Labels, Method, Training
from presafe.methods.targets import own_words, refuse

_FLIPPED: dict[int, Labels] = {10: "flipped_10", 25: "flipped_25"}

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
    # A control of the signal that contradicts no row more than another: it knows how often to refuse, and not what.
    "constant_labels": Method(
        title="Constant p′ (control)",
        kind="control",
        source="ours",
        description="PreSafe with p' the mean of the classifier's p' for every query",
        training=Training(refuse, own_words, labels="constant", head="decision", start=True),
    ),
    # How much does it take? The signal with some of its decisions turned round.
    **{
        f"flipped_labels_{percent}": Method(
            title=f"{percent} % of labels flipped (control)",
            kind="control",
            source="ours",
            description=f"PreSafe with 1 - p' in place of p' for {percent} % of the queries",
            training=Training(refuse, own_words, labels=labels, head="decision", start=True),
        )
        for percent, labels in _FLIPPED.items()
    },
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
