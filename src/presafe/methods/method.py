"""What a method is: a prefill of the thought, or a training with its targets, its signal and its loss terms.

    L = L_SFT + λ · L_align + λ_start · L_start            (paper, section 4; the last term ours, design/0005)

A training differs from PreSafe's in what queries are answered with, in the p′ that the last two terms learn, and in
which of them are on. Rows, budget, base, trainer and export are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from presafe.records import Prompt, Response

Kind = Literal["baseline", "presafe", "control", "rival"]
"""What a method is to this project; in this order they are listed."""

Form = Literal["direct", "thought"]
"""How a harmful query is refused: at once, or after a short safe thought."""

Labels = Literal["classifier", "hard", "dataset", "random", "shuffled"]
"""Where p′ is from: the classifier, the same cut at ½, what the data set expects, fair coins, the classifier's p′ dealt
out to other queries."""

Head = Literal["decision", "detached", "pooled"]
"""What the auxiliary head reads: the decision position; the same without a gradient into the model; or the means of
SafeKey, for its two heads."""


Position = Literal["prompt_end", "thought_start", "prompt_mean"]
"""What a head of L_align reads: the last prompt token before the CoT, the CoT's first token, or the mean over the
prompt."""


@dataclass(frozen=True)
class Prefill:
    """The beginning of a thought that the model did not write; `closed` is with the mark that ends it."""

    thought: str
    closed: bool


class Case(NamedTuple):
    """A query as a target is made from it."""

    prompt: Prompt
    response: Response | None
    """The model's own with CoT on, or of a file of safe thoughts that of the file."""
    form: Form
    """The recipe's `refusal_target`."""


class Target(NamedTuple):
    """What a query is to be answered with."""

    thought: str | None
    """None closes the thought at once."""
    answer: str | None
    """None leaves the thought open: nothing after it is trained."""
    complete: bool = True
    """Whether the turn ends after the answer."""
    rest: str = ""
    """The thought from a point on that the method's loss needs: after the sentences that SafeKey's heads read, or from
    the first pivot on."""


@dataclass(frozen=True)
class Training:
    """How a method trains."""

    refusal: Callable[[Case], Target | None]
    """Target of a harmful query; None leaves it out."""
    kept: Callable[[Case], Target | None]
    """Target of a harmless query; None leaves it out."""
    labels: Labels = "classifier"
    head: Head | None = None
    """Whether L_align is on, and what its head reads."""
    start: bool = False
    """Whether L_start is on."""
    lambda_align: float | None = None
    """The method's own λ; None takes the recipe's."""
    lambda_start: float | None = None
    """The method's own λ_start; None takes the recipe's."""
    pivots: tuple[str, str] | None = None
    """Words for unsafe and safe with which `Target.rest` begins: L_start then sets the one against the other."""
    steering: str | None = None
    """Instruction before harmful queries under which the model itself writes the responses that `refusal` is given."""
    needs_data: bool = False
    """Whether rows of a local file (`align.data`) take the place of the harmful queries."""


@dataclass(frozen=True)
class Method:
    """A method: exactly one of `prefill` and `training` is given."""

    title: str
    """As tables name it."""
    kind: Kind
    source: str
    """Paper and arXiv id, or "ours"."""
    description: str
    """What it does, in one sentence."""
    prefill: Prefill | None = None
    """What stands at the start of every thought with CoT on; nothing is trained."""
    training: Training | None = None
