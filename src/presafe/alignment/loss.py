"""The auxiliary loss (paper, section 4): L_align = 1/M Σⱼ BCE(pⱼ, p′ⱼ), with pⱼ = σ(φ(hⱼ))."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def alignment_loss(logits: Float[Tensor, " rows"], targets: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
    """Σⱼ BCE(σ(zⱼ), p′ⱼ) over the rows given; the caller divides by M, the rows of the whole step.

    BCE(p, p′) = −p′ ln p − (1 − p′) ln(1 − p), computed from z without forming p.

    Args:
        logits: z = φ(h), the head's output, in ℝ.
        targets: p′, the classifier's soft decision, in [0, 1]; 1 is refuse.

    Returns:
        The sum, in nats.
    """
    return binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum")


def next_token_loss(logits: Float[Tensor, "rows columns vocabulary"], labels: Tensor) -> Float[Tensor, ""]:
    """Σ −ln π(yₜ | y₍<t₎) over the labels that are not −100; the caller divides by their number in the whole step.

    Args:
        logits: Output of the language-model head at the positions before the labels.
        labels: Token ids of shape (rows, columns), already shifted; −100 is left out.

    Returns:
        The sum, in nats.
    """
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum"
    )
