"""The losses of one step.

    L_align = 1/M Σⱼ BCE(σ(φ(hⱼ)), p′ⱼ)     the auxiliary head at the decision position       (paper, section 4)
    L_start = 1/M Σⱼ −p′ⱼ ln P(r) − (1 − p′ⱼ) ln P(yⱼ)   r: a refusal's first token, y: the row's own   (ours)
    L_CPO   = 1/M Σⱼ −ln σ(ln P(t⁺) − ln P(t⁻))                 (Reasoning-to-Defend, arXiv 2502.12970, equation 4)

L_CPO, whose t⁺ is the right one of the pivots "unsafe" and "safe" and t⁻ the other, is L_align with
z = ln P(unsafe) − ln P(safe) and p′ in {0, 1}: −ln σ(z) where p′ = 1, −ln σ(−z) where p′ = 0.

The head can read from h information that is there already, without changing the model's output. L_start cannot be
minimized that way, because it is a loss on the output (`design/0005-decision-in-the-output.md`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from presafe.models.decision_head import start_log_odds


def alignment_loss(logits: Float[Tensor, " rows"], targets: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
    """Return Σⱼ BCE(σ(zⱼ), p′ⱼ) over the given rows; the caller divides by M, the step's rows with a p′.

    BCE(p, p′) = −p′ ln p − (1 − p′) ln(1 − p), computed from z without forming p.

    Args:
        logits: z, the head's output φ(h) or the model's own log-odds of one pivot against the other, in ℝ.
        targets: p′, the classifier's soft decision, in [0, 1]; 1 is refuse.

    Returns:
        The sum, in nats.
    """
    return binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum")


def signal_entropy(targets: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
    """Return Σⱼ H(p′ⱼ) = Σⱼ −p′ⱼ ln p′ⱼ − (1 − p′ⱼ) ln(1 − p′ⱼ), the least that `alignment_loss` can be.

    Args:
        targets: p′, in [0, 1].

    Returns:
        The sum, in nats.
    """
    entropies: Tensor = torch.special.entr(targets) + torch.special.entr(1 - targets)
    return entropies.sum()


def start_loss(
    logits: Float[Tensor, "rows vocabulary"], refusal: int, own: Int[Tensor, " rows"], targets: Float[Tensor, " rows"]
) -> Float[Tensor, ""]:
    """Return Σⱼ −p′ⱼ ln P(r) − (1 − p′ⱼ) ln P(yⱼ) over the given rows; the caller divides by M, the rows with a p′.

    The loss asks the model to start either a refusal or its own thought, and nothing else: a loss that only lowers P(r)
    would also accept an answer in place of the thought (`design/0005`). A row that is itself a refusal has no such
    thought; there 1 − P(r) replaces P(y).

    Args:
        logits: Output of the language-model head at the position before the token.
        refusal: r, the first token of a refusal.
        own: y, the next token of each row.
        targets: p′, in [0, 1].

    Returns:
        The sum, in nats.
    """
    odds = start_log_odds(logits, refusal)
    thoughts = logits.log_softmax(-1).gather(-1, own[:, None]).squeeze(-1)
    other = torch.where(own == refusal, logsigmoid(-odds), thoughts)
    return -(targets * logsigmoid(odds) + (1 - targets) * other).sum()


def next_token_loss(logits: Float[Tensor, "rows columns vocabulary"], labels: Tensor) -> Float[Tensor, ""]:
    """Return Σ −ln π(yₜ | y₍<t₎) over the labels other than −100; the caller divides by their number in the step.

    Args:
        logits: Output of the language-model head at the positions before the labels.
        labels: Token ids of shape (rows, columns), already shifted; −100 is ignored.

    Returns:
        The sum, in nats.
    """
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum"
    )
