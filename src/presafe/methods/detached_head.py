"""A control of the gradient: the head learns p′ from h, and h learns nothing from the head.

L_start is off, so that no gradient of p′ reaches the adapter. What is left of the auxiliary loss is that the head's
gradient is clipped together with the adapter's: where that norm is above 1, the adapter's steps are shorter than those
of SFT alone. So the control tells the direction of the gradient from the brake.
"""

from __future__ import annotations

from presafe.methods.method import Method, Training
from presafe.methods.targets import own_words, refuse

METHOD = Method(
    title="Detached head (control)",
    kind="control",
    source="ours",
    description="PreSafe whose head is trained, but sends no gradient into the model; L_start is off",
    training=Training(refuse, own_words, head="detached"),
)
