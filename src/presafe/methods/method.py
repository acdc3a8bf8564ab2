"""What a method declares: a prefill of the thought, or a training with its targets, signal and loss terms.

    L = L_SFT + λ · L_align + λ_start · L_start            (paper, section 4; the last term ours, design/0005)

A training differs from PreSafe's in the answers to queries, in the p′ that the last two terms learn, and in which of
them are on. Rows, budget, base, trainer and export are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from presafe.records import Prefill, Response

Kind = Literal["baseline", "presafe", "control", "rival"]
"""Role of a method in this project; methods are listed in this order."""

Form = Literal["direct", "thought"]
"""How a harmful query is refused: at once, or after a short safe thought."""

Labels = Literal["classifier", "hard", "dataset", "random", "shuffled", "constant", "flipped_10", "flipped_25"]
"""Source of p′: the classifier, its decision cut at ½, what the data set expects, fair coins, the classifier's p′
permuted over the queries, its mean for every query, or the classifier's p′ turned round for 10 or 25 % of the queries.
"""

Head = Literal["decision", "detached", "pooled"]
"""What the auxiliary head reads: the decision position; the same without a gradient into the model; or the mean states
of SafeKey, for its two heads."""


Position = Literal["prompt_end", "thought_start", "prompt_mean"]
"""What a head of L_align reads: the last prompt token before the CoT, the CoT's first token, or the mean over the
prompt."""


class AdapterShape(NamedTuple):
    """The adapter of a method that does not take the recipe's: alpha / rank stays as in the recipe."""

    rank: int
    targets: tuple[str, ...]
    """Names of the linear layers that carry it."""
    depth: tuple[float, float]
    """Blocks that carry it, from and up to, as shares of the model's depth."""

    def layers(self, num_layers: int) -> list[int]:
        """Return the blocks that carry the adapter, counted from 0; at least one.

        Args:
            num_layers: The model's blocks.
        """
        first, last = (round(share * num_layers) for share in self.depth)
        return list(range(first, max(last, first + 1)))


class Case(NamedTuple):
    """A query, with all that a target is made from."""

    prompt_id: str
    query: str
    response: Response | None
    """The model's own response with CoT on, or the response in a file of safe thoughts."""
    form: Form
    """The recipe's `refusal_target`."""


class Target(NamedTuple):
    """The response that training teaches for a query."""

    thought: str | None
    """None closes the thought at once."""
    answer: str | None
    """None leaves the thought open: nothing after it is trained."""
    complete: bool = True
    """Whether the turn ends after the answer."""
    token_ids: tuple[int, ...] | None = None
    """The whole turn as the model sampled it; None if only its text is known, or if a method changed it."""
    rest: str = ""
    """The part of the thought after `thought`, where the method's loss must know the border: after the sentences that
    SafeKey's heads read, or from the first pivot on."""


@dataclass(frozen=True)
class Training:
    """How a method trains."""

    refusal: Callable[[Case], Target | None]
    """Target of a harmful query; None drops the query."""
    kept: Callable[[Case], Target | None]
    """Target of a harmless query; None drops the query."""
    labels: Labels = "classifier"
    head: Head | None = None
    """What the head of L_align reads; None switches L_align off."""
    start: bool = False
    """Whether L_start is on."""
    lambda_align: float | None = None
    """The method's own λ; None uses the recipe's."""
    lambda_start: float | None = None
    """The method's own λ_start; None uses the recipe's."""
    pivots: tuple[str, str] | None = None
    """Words for unsafe and safe with which `Target.rest` begins; L_start then contrasts the two."""
    steering: str | None = None
    """Instruction before harmful queries under which the model itself writes the responses that `refusal` is given."""
    adapter: AdapterShape | None = None
    """The method's own adapter; None takes the recipe's."""
    needs_data: bool = False
    """Whether rows of a local file (`align.data`) replace the harmful queries."""

    def weights(self, lambda_align: float, lambda_start: float) -> tuple[float, float]:
        """Return the weights of L_align and L_start that the method trains with; 0 switches a term off.

        Args:
            lambda_align: The recipe's λ, at least 0.
            lambda_start: The recipe's λ_start, at least 0.
        """
        align = lambda_align if self.lambda_align is None else self.lambda_align
        start = lambda_start if self.lambda_start is None else self.lambda_start
        return align if self.head else 0.0, start if self.start else 0.0


@dataclass(frozen=True)
class Method:
    """A method: exactly one of `prefill` and `training` is given."""

    title: str
    """Name in tables."""
    kind: Kind
    source: str
    """Paper and arXiv id, or "ours"."""
    description: str
    """What it does, in one sentence."""
    prefill: Prefill | None = None
    """Start of every thought with CoT on; nothing is trained."""
    training: Training | None = None
